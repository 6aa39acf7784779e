#include "tools/latchkey/event_text.h"

#include <fmt/format.h>

#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"

namespace latchkey::tool {
namespace {

std::string WhatText(const Event& event) {
  const wire::Reason no_sa = wire::Reason::kNoSa;
  switch (event.what) {
    case Event::What::kState:
      return fmt::format("{} -> {}: {}", event.IsNew() ? "new" : StateName(event.from),
                         StateName(event.latch.state), wire::ReasonWord(event.latch.reason));
    case Event::What::kStall:
      return fmt::format("stalls: {}", wire::ReasonWord(no_sa));
    case Event::What::kMove:
      return fmt::format("moves again: {}", wire::ReasonWord(no_sa));
  }
  return {};
}

}  // namespace

std::string EventLine(const Event& event, const std::string& broker) {
  const Latch& latch = event.latch;
  std::string text =
      fmt::format("{} latch {} {} {} {}", Rfc3339(event.time), latch.id, WhatText(event),
                  ProtocolWord(latch.flow.protocol), latch.flow.local.ToString());
  if (latch.flow.remote.address.family != Family::kNone) {
    const char* arrow = latch.flow.direction == Direction::kIn ? "<-" : "->";
    text += fmt::format(" {} {}", arrow, latch.flow.remote.ToString());
  }
  if (latch.clear) text += " CLEAR";
  if (latch.implicit) text += " implicit";
  if (!latch.identity.peer_id.empty()) text += " peer " + Printable(latch.identity.peer_id);
  if (!latch.rule.empty()) text += " rule " + Printable(latch.rule);
  text += fmt::format(" program {} pid {}", Printable(latch.program), latch.pid);
  if (!broker.empty()) text += " broker " + Printable(broker);
  return text + "\n";
}

}  // namespace latchkey::tool
