#include "tools/latchkeyd/latch/sa_table.h"

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/fake_kernel.h"

namespace latchkey::broker {
namespace {

Identified Named(const std::string& id) {
  return Identified::Known({Identity{id, "me", "manual"}, true, {}});
}

const Flow kFlow{Direction::kIn, kProtocolTcp, At("10.9.0.1", 80), At("10.9.0.2", 40000)};

TEST_CASE("an SA carries a flow only between its own addresses and in its own direction") {
  FakeKernel kernel;
  SaTable table;
  const std::vector<Sa> pair = kernel.AddPair(7, "10.9.0.2");
  table.Put(pair[0], false, Named("bob"), 1);
  table.Put(pair[1], true, Named("bob"), 1);
  CHECK(table.Carrying(kFlow, false).size() == 1);
  CHECK(table.Carrying(kFlow, true).size() == 1);
  Flow other = kFlow;
  other.remote = At("10.9.0.3", 40000);
  CHECK(table.Carrying(other, true).empty());
  other.remote = At("fd00::2", 40000);
  CHECK(table.Carrying(other, true).empty());
}

TEST_CASE("larval and interface SAs carry nothing of ours; a marked one may bring packets in") {
  FakeKernel kernel;
  for (int what = 0; what < 3; ++what) {
    SaTable table;
    for (Sa sa : kernel.AddPair(7, "10.9.0.2")) {
      if (what == 0) sa.larval = true;
      if (what == 1) sa.if_id = 1;
      if (what == 2) sa.mark_mask = 1;
      table.Put(sa, sa.source != At("10.9.0.1", 0).address, Named("bob"), 1);
    }
    INFO("what " << what);
    CHECK(table.Carrying(kFlow, true).size() == (what == 2 ? 1 : 0));
    CHECK(table.Carrying(kFlow, false).empty());
  }
}

TEST_CASE("newest first") {
  FakeKernel kernel;
  SaTable table;
  const Sa old = kernel.AddPair(7, "10.9.0.2")[1];
  const Sa fresh = kernel.AddPair(8, "10.9.0.2")[1];
  table.Put(old, true, Named("bob"), 1);
  table.Put(fresh, true, Named("bob"), 2);
  table.Put(old, true, Named("bob"), 3);  // a change in place does not make it newer
  REQUIRE(table.Carrying(kFlow, true).size() == 2);
  CHECK(table.Carrying(kFlow, true)[0]->sa.reqid == 8);
}

TEST_CASE("who was behind an SA is remembered as long as asked for") {
  FakeKernel kernel;
  SaTable table;
  const Sa first = kernel.AddPair(7, "10.9.0.2")[1];
  const Sa second = kernel.AddPair(9, "10.9.0.2")[1];
  table.Put(first, true, Named("bob"), 10);
  CHECK(table.IdentitiesSince(kFlow, 0, true).size() == 1);
  table.Put(second, true, Identified::Nobody(), 20);
  CHECK(table.IdentitiesSince(kFlow, 0, true).size() == 2);  // nobody counts as one
  table.Erase(second.key, 30);
  CHECK(table.IdentitiesSince(kFlow, 30, true).size() == 2);
  CHECK(table.IdentitiesSince(kFlow, 31, true).size() == 1);
  table.ForgetBefore(31);
  CHECK(table.IdentitiesSince(kFlow, 0, true).size() == 1);
}

TEST_CASE("an SA whose peer becomes another counts as two") {
  FakeKernel kernel;
  SaTable table;
  const Sa sa = kernel.AddPair(7, "10.9.0.2")[1];
  table.Put(sa, true, Named("bob"), 10);
  table.Put(sa, true, Named("mallory"), 20);
  CHECK(table.IdentitiesSince(kFlow, 0, true).size() == 2);
  CHECK(table.Carrying(kFlow, true).size() == 1);
}

TEST_CASE("a voucher is for the very SA, and says what it is for") {
  FakeKernel kernel;
  Sa sa = kernel.AddPair(7, "10.9.0.2")[1];
  sa.protection.mode = Mode::kTunnel;
  sa.added = 1'700'000'000;
  Selector traffic;
  traffic.family = Family::kV4;
  traffic.source = *Prefix::Parse("192.168.2.0/24");
  traffic.destination = *Prefix::Parse("192.168.1.0/24");
  const Voucher voucher{sa, {"bob", "me", "pubkey"}, {traffic}};
  const bool same = GENERATE(true, false);
  if (!same) ++sa.added;
  SaTable table;
  table.BeginInheriting({voucher});
  table.Put(sa, true, Identified::Pending(), 1);
  table.EndInheriting();
  const KnownSa& known = *table.Find(sa.key);
  CHECK(known.inherited);
  CHECK(known.vouched.has_value() == same);
  CHECK(known.doubtful() == same);
  CHECK(known.by_reqid() == same);
  CHECK(known.traffic.empty() != same);
  table.Put(sa, true, Identified::Nobody(), 2);
  CHECK(table.Find(sa.key)->orphan());
  CHECK(table.Find(sa.key)->Vouching().has_value() == same);
  // What came later it was not there for.
  sa.key.spi += 100;
  table.Put(sa, true, Identified::Nobody(), 3);
  CHECK_FALSE(table.Find(sa.key)->orphan());
}

}  // namespace
}  // namespace latchkey::broker
