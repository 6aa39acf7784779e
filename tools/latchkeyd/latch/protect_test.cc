#include "tools/latchkeyd/latch/protect.h"

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

struct Known {
  std::vector<KnownSa> storage;
  std::vector<const KnownSa*> out, in;

  void Add(FakeKernel& kernel, uint32_t reqid, const char* peer, uint16_t bits = 256) {
    for (const Sa& sa : kernel.AddPair(reqid, "10.9.0.2", bits)) {
      const bool inbound = sa.source == Address::Parse("10.9.0.2").value();
      Identified who;
      if (peer != nullptr) who = Identified::Known({Identity{peer, "me", "manual"}, true, {}});
      storage.push_back(KnownSa{sa, inbound, who, storage.size()});
    }
    out.clear();
    in.clear();
    for (const KnownSa& known : storage)
      (known.inbound ? in : out).insert((known.inbound ? in : out).begin(), &known);
  }
};

policy::Demand With(uint32_t reqid) {
  policy::Demand demand = policy::DemandOf(ProtectRule());
  demand.reqid = reqid;
  return demand;
}

TEST_CASE("the newest pair of one peer is chosen, or the one under the reqid asked for") {
  FakeKernel kernel;
  Known known;
  known.Add(kernel, 7, "bob");
  known.Add(kernel, 8, "bob");
  CHECK(ChoosePair(known.out, known.in, With(0))->out->sa.reqid == 8);
  CHECK(ChoosePair(known.out, known.in, With(7))->out->sa.reqid == 7);
  CHECK(ChoosePair(known.out, known.in, With(9)).error().reason == Reason::kNoSa);
}

TEST_CASE("the narrowest selector wins over the newest") {
  FakeKernel kernel;
  Known known;
  known.Add(kernel, 7, "bob");
  for (KnownSa& sa : known.storage) {
    sa.sa.selector.protocol = kProtocolTcp;
    sa.sa.selector.destination_port = 443;
    sa.sa.selector.destination_mask = 0xffff;
  }
  known.Add(kernel, 8, "bob");
  CHECK(ChoosePair(known.out, known.in, With(0))->out->sa.reqid == 7);
}

TEST_CASE("what the key manager has forgotten is whose it was, and is not chosen") {
  FakeKernel kernel;
  Known known;
  known.Add(kernel, 7, "bob");
  for (KnownSa& sa : known.storage) {
    sa.vouched = sa.who.verified.identity;
    sa.who = Identified::Nobody(Reason::kKmLost);
  }
  CHECK(ChoosePair(known.out, known.in, With(0)).error().reason == Reason::kKmLost);
  SECTION("a new pair of the same peer serves") {
    known.Add(kernel, 7, "bob");
    const auto pair = ChoosePair(known.out, known.in, With(0));
    REQUIRE(pair);
    CHECK(pair->out->who.known());
    CHECK(pair->in->who.known());
  }
  SECTION("one of another peer does not") {
    known.Add(kernel, 7, "mallory");
    CHECK(ChoosePair(known.out, known.in, With(0)).error().reason == Reason::kAmbiguousPeer);
  }
  SECTION("nor is one served whose past nobody knows") {
    for (KnownSa& sa : known.storage) sa.vouched.reset();
    known.Add(kernel, 7, "bob");
    CHECK(ChoosePair(known.out, known.in, With(0)).error().reason == Reason::kKmLost);
  }
}

TEST_CASE("an SA of nobody beside one of somebody's is ambiguous") {
  FakeKernel kernel;
  Known known;
  known.Add(kernel, 7, "bob");
  known.Add(kernel, 8, nullptr);
  CHECK(ChoosePair(known.out, known.in, With(0)).error().reason == Reason::kAmbiguousPeer);
}

TEST_CASE("an SA whose packets a card takes whole is not latched") {
  FakeKernel kernel;
  Known known;
  known.Add(kernel, 7, "bob");
  for (KnownSa& each : known.storage) each.sa.offload = Offload::kCrypto;
  CHECK(ChoosePair(known.out, known.in, With(0)));
  known.storage[1].sa.offload = Offload::kPacket;
  CHECK(ChoosePair(known.out, known.in, With(0)).error().reason == Reason::kOffloadUntagged);
}

TEST_CASE("every latched parameter counts as a conflict when it differs") {
  Latch latch;
  latch.identity = Identity{"bob", "me", "manual"};
  latch.protection = {SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
  KnownSa known;
  known.inbound = true;
  known.who = Identified::Known({latch.identity, true, {}});
  known.sa.protection = latch.protection;
  CHECK_FALSE(Conflicts(known, latch));
  const auto differs = [&](auto change) {
    KnownSa other = known;
    change(other);
    return Conflicts(other, latch);
  };
  CHECK(differs([](KnownSa& sa) { sa.who = Identified::Nobody(); }));
  CHECK(differs([](KnownSa& sa) { sa.who.verified.identity.peer_id = "Bob2"; }));
  CHECK(differs([](KnownSa& sa) { sa.who.verified.identity.local_id = "you"; }));
  CHECK(differs([](KnownSa& sa) { sa.who.verified.identity.auth = "psk"; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.encryption = "aes-cbc"; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.integrity = "hmac-sha1"; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.key_bits = 128; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.mode = Mode::kTunnel; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.protocol = SaProtocol::kAh; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.replay = false; }));
  CHECK(differs([](KnownSa& sa) { sa.sa.protection.esn = true; }));
  // Whether what we send is checked for replay is the peer's affair: the kernel does not know it.
  CHECK_FALSE(differs([](KnownSa& sa) {
    sa.inbound = false;
    sa.sa.protection.replay = false;
  }));
}

}  // namespace
}  // namespace latchkey::broker
