#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

int Report(const Refusal& refusal) {
  std::string_view rest = refusal.text;
  std::string lines;
  while (true) {
    const size_t end = rest.find('\n');
    lines += "latchkey: ";
    lines += rest.substr(0, end);
    lines += '\n';
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  // One write: the lines of several launchers in one terminal stay whole.
  std::fputs(lines.c_str(), stderr);
  return refusal.exit;
}

int Print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return kExitYes;
  }
  return Report({kExitNo, std::string("standard output: ") + std::strerror(errno)});
}

}  // namespace latchkey::tool
