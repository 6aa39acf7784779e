// Tags: what tells a socket's filter under which SA a datagram came.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"
#include "tools/latchkeyd/latch/held.h"

namespace latchkey::broker {
namespace {

uint32_t TagOf(const HoldBroker& broker, const Sa& sa) {
  for (const Sa& each : broker.kernel.sad) {
    if (each.key == sa.key) return each.set_mark & each.set_mask & kTags;
  }
  return 0;
}

Sa& Find(HoldBroker& broker, const Sa& sa) {
  return *std::ranges::find(broker.kernel.sad, sa.key, &Sa::key);
}

TEST_CASE("SAs that serve no held socket are not touched; each that does bears its own tag") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.3");
  CHECK(TagOf(broker, bob[1]) == 0);
  broker.Held();
  CHECK(TagOf(broker, bob[0]) == 0);
  CHECK(TagOf(broker, bob[1]) != 0);
  CHECK(TagOf(broker, carol[1]) != 0);
  CHECK(TagOf(broker, carol[1]) != TagOf(broker, bob[1]));
  CHECK((Find(broker, bob[1]).set_mask & ~kTags) == 0);
}

TEST_CASE("A tag is the same for all sockets, and stays as long as its SA") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int first = broker.Held(53);
  const uint32_t tag = TagOf(broker, bob[1]);
  const int second = broker.Held(54);
  broker.Hear(Find(broker, bob[1]));  // as the kernel says after the tagging
  CHECK(TagOf(broker, bob[1]) == tag);
  CHECK(broker.TakesIn(first, "10.9.0.2", 1, &bob[1]));
  CHECK(broker.TakesIn(second, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("To be tagged is no change of an SA: it has no past, and its name is known still") {
  HoldBroker broker(ServerPolicy());
  policy::Rule tcp = ProtectRule();
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Held();
  REQUIRE(TagOf(broker, bob[1]) != 0);
  broker.Hear(Find(broker, bob[1]));
  const Flow flow{Direction::kIn, kProtocolUdp, At("10.9.0.1", 53), At("10.9.0.2", 1)};
  CHECK(broker.engine->sas().IdentitiesSince(flow, 0, false).size() == 1);
}

TEST_CASE("The key manager's own mark stands, in our bits and in others") {
  HoldBroker broker(ServerPolicy());
  broker.keys.Name(7, "bob");
  std::vector<Sa> bob = broker.kernel.AddPair(7, "10.9.0.2");
  SECTION("in our bits: it is the tag") {
    Find(broker, bob[1]).set_mark = 0x00050000;
    Find(broker, bob[1]).set_mask = 0xffffffff;
    broker.Hear(broker.kernel.sad);
    const int fd = broker.Held();
    CHECK(TagOf(broker, bob[1]) == 0x00050000);
    CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  }
  SECTION("in some of our bits: it does not tell it from others") {
    Find(broker, bob[1]).set_mark = 0x00050000;
    Find(broker, bob[1]).set_mask = 0x00ff0000;
    broker.Hear(broker.kernel.sad);
    const int fd = broker.Held();
    CHECK(Find(broker, bob[1]).set_mark == 0x00050000);
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
    CHECK(broker.SendsNothing(fd, "10.9.0.2", 1));
    CHECK(broker.Refusals("unsupported") == 1);
  }
  SECTION("in other bits: they stay") {
    Find(broker, bob[1]).set_mark = 0x11;
    Find(broker, bob[1]).set_mask = 0xff;
    broker.Hear(broker.kernel.sad);
    const int fd = broker.Held();
    CHECK((Find(broker, bob[1]).set_mark & 0xffff) == 0x11);
    CHECK(Find(broker, bob[1]).set_mask == (kTags | 0xff));
    CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  }
}

TEST_CASE("A mark that SAs of two identities share serves neither") {
  HoldBroker broker(ServerPolicy());
  broker.keys.Name(7, "bob");
  broker.keys.Name(8, "carol");
  const std::vector<Sa> bob = broker.kernel.AddPair(7, "10.9.0.2");
  const std::vector<Sa> carol = broker.kernel.AddPair(8, "10.9.0.3");
  for (const Sa& sa : {bob[1], carol[1]}) {
    Find(broker, sa).set_mark = 0x00050000;
    Find(broker, sa).set_mask = kTags;
  }
  broker.Hear(Find(broker, bob[1]));
  broker.Hear(bob[0]);
  const int fd = broker.Held();
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  broker.Hear(Find(broker, carol[1]));
  broker.Hear(carol[0]);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.3", 1, &carol[1]));
  broker.Gone(carol);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("A tag of ours that another's SA comes with is changed for a fresh one") {
  HoldBroker broker(ServerPolicy());
  const std::string address = GENERATE("10.9.0.2", "10.9.0.4");
  const std::vector<Sa> bob = broker.Keyed(7, "bob", address);
  const int fd = broker.Held();
  const uint32_t tag = TagOf(broker, bob[1]);
  broker.keys.Name(8, "carol");
  const std::vector<Sa> carol = broker.kernel.AddPair(8, "10.9.0.3");
  Find(broker, carol[1]).set_mark = tag;
  Find(broker, carol[1]).set_mask = kTags;
  broker.Hear(Find(broker, carol[1]));
  broker.Hear(carol[0]);
  CHECK(TagOf(broker, bob[1]) != tag);
  CHECK(TagOf(broker, carol[1]) == tag);
  CHECK(broker.TakesIn(fd, address, 1, &bob[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.3", 1, &carol[1]));
}

std::vector<Guard> Proofs(const HoldBroker& broker) {
  std::vector<Guard> proofs = broker.kernel.guards;
  std::erase_if(proofs, [](const Guard& guard) { return guard.out; });
  return proofs;
}

TEST_CASE("A tag that a firewall gives proves nothing, in clear or under another's SA") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.Held();
  const uint32_t tag = TagOf(broker, bob[1]);
  REQUIRE(tag != 0);
  CHECK(broker.kernel.TakesIn(fd, At("10.9.0.2", 1), &bob[1], tag));
  CHECK_FALSE(broker.kernel.TakesIn(fd, At("10.9.0.2", 1), nullptr, tag));
  CHECK_FALSE(broker.kernel.TakesIn(fd, At("10.9.0.2", 1), &carol[1], tag));
  CHECK(Proofs(broker).size() == 2);
  broker.Unkeyed(bob);
  CHECK(Proofs(broker).size() == 1);
  broker.CloseSocket(fd);
  broker.Pass(broker.options.reap_ms);
  broker.engine->Tick(true);
  CHECK(Proofs(broker).empty());
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.kernel.unproved == 0);
}

TEST_CASE("One proof serves all sockets, and stands until the last of them is closed") {
  HoldBroker broker(ServerPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int first = broker.Held(53);
  const int second = broker.Held(54);
  CHECK(Proofs(broker).size() == 1);
  broker.CloseSocket(first);
  broker.Pass(broker.options.reap_ms);
  broker.engine->Tick(true);
  CHECK(Proofs(broker).size() == 1);
  SECTION("a flush: it comes back") {
    broker.kernel.guards.clear();
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
    CHECK(Proofs(broker).size() == 1);
  }
  SECTION("a clean stop") {
    broker.engine->Stop();
    CHECK(broker.kernel.guards.empty());
  }
  CHECK(broker.kernel.sockets.contains(second));
  CHECK(broker.kernel.unproved == 0);
}

TEST_CASE("Without a proof nothing is admitted") {
  HoldBroker broker(ServerPolicy());
  broker.keys.Name(7, "bob");
  const std::vector<Sa> bob = broker.kernel.AddPair(7, "10.9.0.2");
  const int fd = broker.Held();
  broker.Hear(bob[0]);
  broker.kernel.fail_after = 2;  // 1 is the tag
  broker.Hear(bob[1]);
  CHECK(broker.kernel.fail_after == 0);
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.observer.warnings == 1);
  broker.KeysChanged();
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  CHECK(Proofs(broker).size() == 1);
}

TEST_CASE("Where another broker has the proof of a tag, it is of use to both") {
  HoldBroker broker(ServerPolicy());
  broker.keys.Name(7, "bob");
  broker.kernel.AddPair(7, "10.9.0.2");
  const std::vector<Sa> bob = broker.kernel.sad;
  Find(broker, bob[1]).set_mark = 0x00050000;  // so it is known for one that the other gave
  Find(broker, bob[1]).set_mask = kTags;
  Guard proof = TagProof(bob[1], 0x00050000, kTags);
  const bool wrong = GENERATE(false, true);
  if (wrong) proof.reqid = 70;
  broker.kernel.guards.push_back(proof);
  broker.Hear(broker.kernel.sad);
  const int fd = broker.Held();
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]) != wrong);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("A tag of the key manager's that goes over to SAs of another reqid") {
  HoldBroker broker(ServerPolicy());
  broker.keys.Name(7, "bob");
  broker.keys.Name(9, "bob");
  const auto tagged = [&](uint32_t reqid) {
    std::vector<Sa> pair = broker.kernel.AddPair(reqid, "10.9.0.2");
    pair[1].set_mark = Find(broker, pair[1]).set_mark = 0x00050000;
    pair[1].set_mask = Find(broker, pair[1]).set_mask = kTags;
    return pair;
  };
  const std::vector<Sa> old = tagged(7);
  broker.Hear(old);
  const int first = broker.Held(53);
  const int second = broker.Held(54);
  REQUIRE(broker.TakesIn(first, "10.9.0.2", 1, &old[1]));
  const std::vector<Sa> next = tagged(9);
  SECTION("at once") {
    broker.kernel.RemoveSas(7);
    broker.engine->OnEvents({{KernelEvent::Kind::kSaDeleted, old[0]},
                             {KernelEvent::Kind::kSaDeleted, old[1]},
                             {KernelEvent::Kind::kSaAdded, next[0]},
                             {KernelEvent::Kind::kSaAdded, next[1]}});
  }
  SECTION("there is both for a while, and one entry cannot be the proof of both") {
    broker.Hear(next);
    CHECK(broker.kernel.admissions.empty());
    CHECK(Proofs(broker).empty());
    broker.Unkeyed(old);
  }
  for (const int fd : {first, second}) {
    CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &next[1]));
    CHECK_FALSE(broker.kernel.TakesIn(fd, At("10.9.0.2", 1), nullptr, 0x00050000));
  }
  CHECK(Proofs(broker) == std::vector{TagProof(next[1], 0x00050000, kTags)});
  CHECK(broker.kernel.unproved == 0);
  broker.engine->Stop();
  CHECK(broker.kernel.guards.empty());
}

TEST_CASE("There are as many as the mask has, and the next SA has none") {
  HoldBroker broker(ServerPolicy());
  broker.options.tag_mask = 0x50000;  // two bits, apart: three tags
  broker.Crash();
  for (uint32_t i = 0; i < 4; ++i) {
    broker.Keyed(7 + i, "peer " + std::to_string(i), "10.9.0." + std::to_string(20 + i));
  }
  broker.Held();
  CHECK(broker.kernel.admissions.size() == 3);
  std::set<uint32_t> tags;
  for (const DatagramAdmission& each : broker.kernel.admissions) tags.insert(each.tag);
  CHECK(tags == std::set<uint32_t>{0x10000, 0x40000, 0x50000});
  CHECK(broker.Refusals("unsupported") == 1);
}

TEST_CASE("An SA that cannot be tagged brings nothing in, and its peer is not sent to") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.Unkeyed(bob);
  broker.keys.Name(7, "bob");
  const std::vector<Sa> next = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(next[0]);
  broker.kernel.fail_after = 1;
  broker.Hear(next[1]);
  CHECK(broker.kernel.fail_after == 0);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &next[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1));
  broker.KeysChanged();
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &next[1]));
}

}  // namespace
}  // namespace latchkey::broker
