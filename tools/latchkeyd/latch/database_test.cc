#include "tools/latchkeyd/latch/database.h"

#include <catch2/catch.hpp>
#include <set>

#include "tools/latchkeyd/latch/fake_observer.h"

namespace latchkey::broker {
namespace {

constexpr State kStates[] = {State::kLarval, State::kListener, State::kEstablished, State::kBroken,
                             State::kClosed};

Entry Make(uint64_t cookie, State state = State::kEstablished) {
  Entry entry;
  entry.latch.state = state;
  entry.latch.uid = 7;
  entry.hint.cookie = cookie;
  return entry;
}

TEST_CASE("the moves a latch may make are those of RFC 5660, figure 1") {
  const std::set<std::pair<State, State>> allowed = {
      {State::kLarval, State::kEstablished}, {State::kLarval, State::kClosed},
      {State::kListener, State::kClosed},    {State::kEstablished, State::kBroken},
      {State::kEstablished, State::kClosed}, {State::kBroken, State::kEstablished},
      {State::kBroken, State::kClosed},      {State::kLarval, State::kBroken},
  };
  for (const State from : kStates) {
    for (const State to : kStates) {
      INFO(StateName(from) << " -> " << StateName(to));
      CHECK(MayMove(from, to) == allowed.contains({from, to}));
    }
  }
}

TEST_CASE("a latch is born, found, changed and removed, and the observer hears each once") {
  FakeObserver observer;
  Database database(observer);
  Entry* entry = database.Insert(Make(11));
  REQUIRE(entry != nullptr);
  CHECK(entry->latch.id == 1);
  CHECK(database.FindByCookie(11) == entry);
  CHECK(database.CountOfUid(7) == 1);
  CHECK(database.SetState(*entry, State::kBroken, wire::Reason::kConflictSa));
  CHECK(entry->latch.reason == wire::Reason::kConflictSa);
  CHECK_FALSE(database.SetState(*entry, State::kListener, wire::Reason::kNone));
  CHECK(entry->latch.state == State::kBroken);
  database.Remove(1, wire::Reason::kClosed);
  CHECK(database.Find(1) == nullptr);
  CHECK(database.FindByCookie(11) == nullptr);
  CHECK(database.CountOfUid(7) == 0);
  CHECK(database.Count(wire::Reason::kConflictSa) == 1);
  CHECK(observer.log == std::vector<std::string>{"latch 1 new -> ESTABLISHED: none",
                                                 "latch 1 ESTABLISHED -> BROKEN: conflict-sa",
                                                 "latch 1 BROKEN -> CLOSED: closed"});
}

TEST_CASE("no latch is born closed, broken, without a socket or twice for one socket") {
  FakeObserver observer;
  Database database(observer);
  CHECK(database.Insert(Make(1, State::kClosed)) == nullptr);
  CHECK(database.Insert(Make(1, State::kBroken)) == nullptr);
  CHECK(database.Insert(Make(0)) == nullptr);
  CHECK(database.Insert(Make(1)) != nullptr);
  CHECK(database.Insert(Make(1)) == nullptr);
  CHECK(observer.log.size() == 1);
}

TEST_CASE("ids of a journal are kept and never given out again") {
  FakeObserver observer;
  Database database(observer);
  Entry old = Make(5);
  old.latch.id = 41;
  REQUIRE(database.Insert(std::move(old)) != nullptr);
  CHECK(database.Insert(Make(6))->latch.id == 42);
  CHECK(database.After(0)->latch.id == 41);
  CHECK(database.After(41)->latch.id == 42);
  CHECK(database.After(42) == nullptr);
}

}  // namespace
}  // namespace latchkey::broker
