// What charon says on its VICI socket (tools/latchkeyd/keymgr/vici): packets, and what is read from
// their messages. charon is trusted, yet a version of it that we do not know may say what we do not
// expect.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/fuzz/check.h"
#include "tools/latchkeyd/keymgr/vici/conns.h"
#include "tools/latchkeyd/keymgr/vici/message.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"
#include "tools/latchkeyd/keymgr/vici/spki.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace vici = latchkey::broker::vici;
  using latchkey::fuzz::Check;
  // In memory of exactly its size.
  const std::string octets(data, data + size);
  // A certificate's key is a part of it.
  if (const auto key = vici::SubjectPublicKeyInfo(octets)) {
    Check(octets.find(*key) != std::string::npos, "a key stands in its certificate");
  }
  const auto packet = vici::DecodePacket(octets);
  if (!packet) return 0;
  const auto again = vici::EncodePacket(*packet);
  const bool bare = !vici::IsNamed(packet->type);
  Check(again && *again == octets, "a packet that was read is written as it was");
  Check(!bare || packet->name.empty(), "only named packets have names");
  const vici::Section& message = packet->message;
  if (const auto read = vici::ReadUpDown(message)) {
    for (const vici::ChildSa& child : read->ike.children) {
      Check(!child.installed() || child.spi_in != 0, "an installed child has an SPI");
    }
    Check(!vici::Plain(read->ike.peer_id()) || !read->ike.peer_id().empty(), "a name is not empty");
  }
  (void)vici::ReadChildRekey(message);
  (void)vici::ReadIkeRekey(message);
  (void)vici::ReadIkeUpdate(message);
  (void)vici::ReadLogLine(message);
  if (const auto conn = vici::ReadConn(message)) {
    const std::string fixed = conn->FixedRemoteId();
    Check(fixed.empty() || fixed == conn->RemoteId(), "a fixed id is the configured one");
    for (const vici::ChildConfig& child : conn->children) {
      for (const vici::TrafficSelector& selector : child.remote) {
        Check(selector.dynamic || selector.low.family == selector.high.family,
              "a range is of one family");
        Check(selector.dynamic || selector.low <= selector.high, "a range does not run backwards");
        Check(selector.ports.low <= selector.ports.high, "ports do not run backwards");
      }
    }
  }
  return 0;
}
