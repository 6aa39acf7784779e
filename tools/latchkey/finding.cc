#include "tools/latchkey/finding.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "tools/latchkey/latch_table.h"

namespace latchkey::tool {
namespace {

// Errors of a file come a line each: here they are set apart by "; ".
std::string OneLine(std::string_view text) {
  std::string line;
  while (true) {
    const size_t end = text.find('\n');
    line += Printable(text.substr(0, end));
    if (end == std::string_view::npos) return line;
    line += "; ";
    text.remove_prefix(end + 1);
  }
}

}  // namespace

Finding Ok(std::string text) { return {Finding::Kind::kOk, std::move(text), {}}; }

Finding Bad(std::string text, std::string todo) {
  return {Finding::Kind::kBad, std::move(text), std::move(todo)};
}

Finding Note(std::string text, std::string todo) {
  return {Finding::Kind::kNote, std::move(text), std::move(todo)};
}

std::string FindingsText(const Findings& findings) {
  std::string text;
  for (const Finding& finding : findings) {
    const bool bad = finding.kind == Finding::Kind::kBad;
    text += bad ? "BAD   " : finding.kind == Finding::Kind::kOk ? "ok    " : "note  ";
    text += OneLine(finding.text);
    if (!finding.todo.empty()) text += ": " + OneLine(finding.todo);
    text += '\n';
  }
  return text;
}

bool AnyBad(const Findings& findings) {
  return std::ranges::any_of(
      findings, [](const Finding& finding) { return finding.kind == Finding::Kind::kBad; });
}

}  // namespace latchkey::tool
