// Which entries of a PAD are about a flow, and whether they are of a peer that is asked for.
#include "tools/latchkey/explain_pad.h"

#include <catch2/catch.hpp>

namespace latchkey::tool {
namespace {

struct Fixture {
  policy::Pad pad = *policy::ParsePad(R"(
[[sa]]
reqid = 7
remote = ["10.9.0.2"]
id = "bob"
[[sa]]
reqid = 8
id = "carol"
[[sa]]
reqid = 9
remote = ["10.9.0.3"]
id = "dave"
[[sa]]
spi = "0x101"
dst = "10.9.0.2"
id = "bob"
)",
                                      "pad");
  PeerSpec bob{"b", {"bob"}, {}};
  Flow flow{Direction::kOut, kProtocolTcp, {}, {*Address::Parse("10.9.0.2"), 80}};
  policy::Demand demand;

  Fixture() { demand.peers = {&bob}; }
};

using Names = std::vector<PadName>;

TEST_CASE_METHOD(Fixture, "Those of the peer's address, each judged") {
  CHECK(NamesByPad(pad, flow, demand) ==
        Names{{7, 0, "bob", true}, {8, 0, "carol", false}, {0, 0x101, "bob", true}});
  demand.peers.clear();
  CHECK(NamesByPad(pad, flow, demand)[1] == PadName{8, 0, "carol", true});
  flow.remote.address = *Address::Parse("10.9.0.4");
  CHECK(NamesByPad(pad, flow, demand).size() == 2);
}

TEST_CASE_METHOD(Fixture, "Of one reqid alone where one is asked for") {
  demand.reqid = 8;
  CHECK(NamesByPad(pad, flow, demand) == Names{{8, 0, "carol", false}, {0, 0x101, "bob", true}});
}

TEST_CASE_METHOD(Fixture, "A tunnel's other end has an address of its own") {
  demand.mode = Mode::kTunnel;
  CHECK(NamesByPad(pad, flow, demand).size() == 4);
}

TEST_CASE_METHOD(Fixture, "Where entries disagree it is nobody") {
  pad.entries[1].reqid = 7;
  CHECK(NamesByPad(pad, flow, demand)[0] == PadName{7, 0, "", false});
}

}  // namespace
}  // namespace latchkey::tool
