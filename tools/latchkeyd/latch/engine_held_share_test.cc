// One user's share of what the filter of unconnected UDP sockets holds.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

TEST_CASE("One user has no more than his share of the filter's maps; root has what there is") {
  HoldBroker broker(ClientPolicy());
  broker.options.filter_share = 3;
  broker.Restart(Legacy{});
  const uint32_t uid = GENERATE(0U, 1000U);
  broker.client.requester.uid = uid;
  for (uint16_t port = 1000; port < 1003; ++port) REQUIRE(broker.Held(port) > 0);
  const Answer another = broker.Hold(broker.Bound(1003));
  CHECK((another.reason == Reason::kLimit) == (uid != 0));
  const int fd = broker.kernel.next_fd - 2;  // the last one that is held, of a user
  for (uint16_t port = 1; port < 4; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  CHECK((broker.Peer(fd, "10.9.0.2", 4).reason == Reason::kLimit) == (uid != 0));
  // The socket's own that are idle make way, as where it has too many.
  broker.Pass(60'000);
  CHECK(broker.Peer(fd, "10.9.0.2", 5).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.2", 5));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1) == (uid != 0));
}

struct Rationed : HoldBroker {
  explicit Rationed(size_t share) : HoldBroker(ServerPolicy()) {
    options.admission_share = share;
    Restart(Legacy{});
    bob = Keyed(7, "bob", "10.9.0.2");
    carol = Keyed(8, "carol", "10.9.0.3");
  }
  int HeldBy(uint32_t uid, uint16_t port) {
    client.requester.uid = uid;
    return Held(port);
  }
  void Close(int fd) {
    Pass(options.reap_ms);  // it was seen once
    CloseSocket(fd);
    Pass(options.reap_ms);
    engine->Tick();  // what is free now is given away
  }
  bool HearsBob(int fd) const { return TakesIn(fd, "10.9.0.2", 1, &bob[1]); }
  bool HearsCarol(int fd) const { return TakesIn(fd, "10.9.0.3", 1, &carol[1]); }

  std::vector<Sa> bob, carol;
};

TEST_CASE("One user's peers leave room for those of others; whoever has more room gets them then") {
  Rationed broker(3);
  const int first = broker.HeldBy(1000, 1000);
  const int second = broker.HeldBy(1000, 1001);
  CHECK(broker.HearsBob(first));
  CHECK(broker.HearsCarol(first));
  CHECK(broker.HearsBob(second));
  CHECK_FALSE(broker.HearsCarol(second));
  CHECK(broker.SendsNothing(second, "10.9.0.3", 1));
  CHECK(broker.kernel.admissions.size() == 3);
  CHECK(broker.observer.warnings == 1);
  // What the program asks about is no way around it.
  CHECK(broker.Peer(second, "10.9.0.3", 1).reason == Reason::kLimit);
  CHECK(broker.SendsNothing(second, "10.9.0.3", 1));
  // Others, and root, have their own.
  for (const uint32_t uid : {1001U, 0U}) {
    for (uint16_t port = 1; port < 3; ++port) {
      const int fd = broker.HeldBy(uid, static_cast<uint16_t>(2000 + 100 * uid + port));
      CHECK(broker.HearsBob(fd));
      CHECK(broker.HearsCarol(fd) == (port == 1 || uid == 0));
    }
    REQUIRE(broker.observer.warnings == 2);
  }
  broker.Close(first);
  CHECK(broker.HearsBob(second));
  CHECK(broker.HearsCarol(second));
  CHECK(broker.Sends(second, "10.9.0.3", 1, 8));
}

TEST_CASE("Where a user's share is used up a rekey loses none of his peers") {
  Rationed broker(2);
  const int fd = broker.HeldBy(1000, 1000);
  const std::vector<Sa> fresh = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.HearsBob(fd));
  CHECK(broker.HearsCarol(fd));
  broker.Gone(broker.bob);
  broker.bob = fresh;
  CHECK(broker.HearsBob(fd));
  CHECK(broker.HearsCarol(fd));
}

TEST_CASE("A user's share counts what is admitted, and is as it was when all of it is gone") {
  Rationed broker(2);
  for (int i = 0; i < 3; ++i) {
    const int fd = broker.HeldBy(1000, 1000);
    CHECK(broker.HearsBob(fd));
    CHECK(broker.HearsCarol(fd));
    broker.Close(fd);
    REQUIRE(broker.kernel.admissions.empty());
  }
  broker.HeldBy(1000, 1000);
  broker.Crash();
  CHECK(broker.kernel.admissions.size() == 2);
  CHECK(broker.observer.warnings == 0);
}

}  // namespace
}  // namespace latchkey::broker
