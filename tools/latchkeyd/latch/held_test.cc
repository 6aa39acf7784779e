#include "tools/latchkeyd/latch/held.h"

#include <catch2/catch.hpp>

namespace latchkey::broker {
namespace {

using Need = DatagramRegion::Need;

SocketAddress At(const std::string& address, uint16_t port) {
  return {*Address::Parse(address), port};
}

TEST_CASE("An entry is for one port of ours and one other end, or all ports of it") {
  const Guard one = DatagramGuard(*Prefix::Parse("10.9.0.1"), 53, At("10.9.0.2", 4000), 8);
  CHECK(one.out);
  CHECK(one.mark == 8);
  CHECK(one.selector.Matches(kProtocolUdp, At("10.9.0.1", 53), At("10.9.0.2", 4000)));
  CHECK_FALSE(one.selector.Matches(kProtocolUdp, At("10.9.0.1", 53), At("10.9.0.2", 4001)));
  CHECK_FALSE(one.selector.Matches(kProtocolUdp, At("10.9.0.1", 54), At("10.9.0.2", 4000)));
  CHECK_FALSE(one.selector.Matches(kProtocolTcp, At("10.9.0.1", 53), At("10.9.0.2", 4000)));
  const Guard all = DatagramGuard(*Prefix::Parse("10.9.0.1"), 53, At("10.9.0.2", 0), 8);
  CHECK(all.selector.Matches(kProtocolUdp, At("10.9.0.1", 53), At("10.9.0.2", 4001)));
  CHECK_FALSE(all.selector.Matches(kProtocolUdp, At("10.9.0.1", 53), At("10.9.0.3", 4001)));
}

TEST_CASE(
    "A tag's proof is asked of datagrams between the ends of its SA that bear it, last of all") {
  Sa sa;
  sa.source = *Address::Parse("10.9.0.2");
  sa.key = {*Address::Parse("10.9.0.1"), 1, SaProtocol::kAh};
  sa.reqid = 7;
  const Guard proof = TagProof(sa, 0x00050000, 0x7fff0000);
  CHECK_FALSE(proof.out);
  CHECK(proof.action == Guard::Action::kAh);
  CHECK(proof.reqid == 7);
  CHECK(proof.priority == 0xffffffff);
  CHECK(proof.mark == 0x00050000);
  CHECK(proof.unset == 0x7ffa0000);
  CHECK(proof.selector.Matches(kProtocolUdp, At("10.9.0.2", 1), At("10.9.0.1", 2)));
  CHECK_FALSE(proof.selector.Matches(kProtocolTcp, At("10.9.0.2", 1), At("10.9.0.1", 2)));
  CHECK_FALSE(proof.selector.Matches(kProtocolUdp, At("10.9.0.3", 1), At("10.9.0.1", 2)));
  CHECK_FALSE(proof.selector.Matches(kProtocolUdp, At("10.9.0.2", 1), At("10.9.0.4", 2)));
}

TEST_CASE("Those that were asked about add what the rules do not say") {
  Held held;
  held.regions = {{*Prefix::Parse("10.0.0.0/8"), 0, Need::kTag},
                  {*Prefix::Parse("11.0.0.0/8"), 0, Need::kDrop}};
  held.asked = {*Prefix::Parse("11.0.0.0/8")};
  CHECK(NeedAt(held, {*Address::Parse("10.1.1.1"), 0}) == Need::kTag);
  CHECK(NeedAt(held, {*Address::Parse("12.1.1.1"), 0}) == Need::kDrop);
  CHECK(PortsMatter(held, *Address::Parse("11.1.1.1")));
  CHECK_FALSE(PortsMatter(held, *Address::Parse("10.1.1.1")));
  CHECK(RegionsOf(held) == held.regions);
  held.peers[At("10.1.1.1", 53)].asked = true;  // as its region says
  held.peers[At("10.1.1.2", 0)] = {};           // not asked about
  CHECK(RegionsOf(held) == held.regions);
  // One within the host is heard by the loopback device alone.
  HeldPeer& own = held.peers[At("10.1.1.3", 53)];
  own.asked = own.clear = own.same_host = true;
  CHECK(RegionsOf(held).back() ==
        DatagramRegion{*Prefix::Parse("10.1.1.3"), 53, Need::kDrop, true});
  held.peers.erase(At("10.1.1.3", 53));
  held.peers[At("11.1.1.1", 53)].asked = true;
  held.peers[At("11.1.1.1", 123)].asked = held.peers[At("11.1.1.1", 123)].clear = true;
  std::vector<DatagramRegion> wanted = held.regions;
  wanted.push_back({*Prefix::Parse("11.1.1.1"), 53, Need::kTag});
  wanted.push_back({*Prefix::Parse("11.1.1.1"), 123, Need::kPass});
  CHECK(RegionsOf(held) == wanted);
}

}  // namespace
}  // namespace latchkey::broker
