#include "tools/latchkey/event.h"

#include <utility>

namespace latchkey::tool {

std::optional<Event> EventFromWire(const wire::EventRecord& record) {
  const auto direction = static_cast<Direction>(record.direction);
  if (record.from > static_cast<uint8_t>(State::kClosed) || record.stalled > wire::kStallEnds ||
      (direction != Direction::kOut && direction != Direction::kIn)) {
    return std::nullopt;
  }
  std::optional<Latch> latch = FromWire(record.latch);
  if (!latch) return std::nullopt;
  Event event;
  event.time = record.time;
  event.from = static_cast<State>(record.from);
  if (record.stalled == wire::kStallBegins) event.what = Event::What::kStall;
  if (record.stalled == wire::kStallEnds) event.what = Event::What::kMove;
  event.latch = std::move(*latch);
  event.latch.flow.direction = direction;
  return event;
}

}  // namespace latchkey::tool
