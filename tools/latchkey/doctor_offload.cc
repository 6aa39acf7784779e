#include "tools/latchkey/doctor_offload.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>

#include <span>

#include "tools/latchkeyd/kernel/netlink_socket.h"
#include "tools/latchkeyd/kernel/xfrm_build.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::tool {
namespace {

std::string Sas(size_t count) { return std::to_string(count) + (count == 1 ? " SA" : " SAs"); }

}  // namespace

std::expected<OffloadFacts, std::string> ReadOffload() {
  auto socket = broker::NetlinkSocket::Open(NETLINK_XFRM);
  if (!socket) return std::unexpected(socket.error().ToString());
  OffloadFacts facts;
  const auto done = socket->Dump(broker::BuildRequest(XFRM_MSG_GETSA),
                                 [&facts](std::span<const uint8_t> message) {
                                   // One of a protocol that is never latched is none of ours.
                                   const auto sa = broker::ParseSa(message);
                                   if (!sa) return true;
                                   ++(sa->offload == Offload::kPacket   ? facts.packet
                                      : sa->offload == Offload::kCrypto ? facts.crypto
                                                                        : facts.none);
                                   return true;
                                 });
  if (!done) return std::unexpected(done.error().ToString());
  return facts;
}

Findings OffloadFindings(const OffloadFacts& facts) {
  Findings findings;
  if (facts.packet > 0) {
    findings.push_back(
        Bad("offload: a card takes the packets of " + Sas(facts.packet) +
                " whole (packet): the kernel cannot tell which came under them, and they are "
                "latched by nobody (offload-untagged)",
            "set hw_offload = crypto or no for their children in swanctl.conf"));
  }
  if (facts.crypto > 0) {
    findings.push_back(Ok("offload: a card does the ciphers of " + Sas(facts.crypto) +
                          " (crypto), and the kernel still sees under which SA a packet came"));
  }
  if (findings.empty()) {
    findings.push_back(Ok("offload: none; the kernel itself does the work of " +
                          (facts.none == 0 ? "SAs" : Sas(facts.none))));
  }
  return findings;
}

}  // namespace latchkey::tool
