// One event, for people: a line like the broker's log.
#ifndef TOOLS_LATCHKEY_EVENT_TEXT_H_
#define TOOLS_LATCHKEY_EVENT_TEXT_H_

#include <string>

#include "tools/latchkey/event.h"

namespace latchkey::tool {

// "2026-11-23T16:18:34Z latch 7 ESTABLISHED -> BROKEN: admin tcp 10.9.0.1:40000 -> 10.9.0.2:443
// peer b.example rule web program /usr/bin/curl pid 1234", and its end. `broker`: named at the end
// when it is not empty.
std::string EventLine(const Event& event, const std::string& broker);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EVENT_TEXT_H_
