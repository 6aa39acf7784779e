// Latches as JSON: the documents of `list --json`, `show --json` and `watch --json`.
//
// Schema 1 (docs: latchkey(1)). Fields are added to a schema, never renamed; what is absent is
// null.
#ifndef TOOLS_LATCHKEY_LATCH_JSON_H_
#define TOOLS_LATCHKEY_LATCH_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "policy/model/latch.h"
#include "shim/wire/messages.h"
#include "tools/latchkey/event.h"

namespace latchkey::tool {

// Return one document, ending in a newline. Octets that are no UTF-8 become U+FFFD. `sessions`: as
// brokers tell of them and of their fences; one of id 0 is none.
std::string ListJson(const std::vector<Latch>& latches,
                     const std::vector<wire::FenceRecord>& sessions);
std::string ShowJson(const Latch& latch);

// Returns one document on one line (JSON Lines). `broker`: the socket it came from.
std::string EventJson(const Event& event, const std::string& broker);

// Returns `seconds` since 1970 in RFC 3339, UTC: "2026-11-23T16:18:34Z".
std::string Rfc3339(uint64_t seconds);

// The words of JSON and tables alike; "" for what is unknown.
std::string ProtocolWord(uint8_t protocol);
std::string SaProtocolWord(SaProtocol protocol);
std::string ModeWord(Mode mode);
std::string PinWord(Pin pin);
std::string SpiText(uint32_t spi);  // "0x0000c0de"
// What is known of a latch's quality of protection: never a mere set of suites, since the broker
// reads from the kernel which one its SAs have.
inline constexpr char kQop[] = "exact";
std::string DispositionWord(const Latch& latch);
// "none", "crypto" or "packet"; "" of a latch without SAs.
std::string OffloadWord(const Latch& latch);

// True for a peer of an unconnected UDP socket that is one whatever its port.
bool AnyPort(const Latch& latch);
// True for an unconnected UDP socket, of which `dropped` is known.
bool CountsDropped(const Latch& latch);

// True where the key manager said which NATs there are: with the addresses of its own SA.
bool NatKnown(const Peering& peering);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_LATCH_JSON_H_
