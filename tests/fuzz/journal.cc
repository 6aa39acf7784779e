// The journal (tools/latchkeyd/server/journal.h): any octets are a state, and that state written
// down reads as itself.
#include "tools/latchkeyd/server/journal.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/fuzz/check.h"

namespace {

using latchkey::broker::JournalState;

std::string Write(const JournalState& state) {
  std::string text;
  for (const auto& [id, session] : state.sessions) text += latchkey::broker::JournalLine(session);
  for (const auto& [id, entry] : state.latches) text += latchkey::broker::JournalLine(entry);
  for (const auto& guard : state.guards) text += latchkey::broker::JournalLine(guard);
  for (const auto& [key, voucher] : state.vouchers) text += latchkey::broker::JournalLine(voucher);
  text += latchkey::broker::JournalLastIdLine(state.last_id);
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string written = Write(latchkey::broker::ReadJournal(text));
  const JournalState again = latchkey::broker::ReadJournal(written);
  latchkey::fuzz::Check(again.garbled == 0, "what was written reads whole");
  const std::string second = Write(again);
  if (second != written) std::fprintf(stderr, "%s---\n%s", written.c_str(), second.c_str());
  latchkey::fuzz::Check(second == written, "what was written reads as itself");
  return 0;
}
