#include "tools/latchkeyd/server/journal_fixture.h"

namespace latchkey::broker {
namespace {

TEST_CASE("What was written comes back, octet for octet") {
  const Directory directory;
  JournalState state;
  {
    Result<Journal> journal = Journal::Open(directory.File(), state);
    REQUIRE(journal);
    CHECK(state.sessions.empty());
    journal->Add(MakeSession(3));
    journal->Add(MakeGuard(1));
    journal->Add(MakeEntry(9));
    CHECK_FALSE(journal->TakeFailure());
  }
  REQUIRE(Journal::Open(directory.File(), state));
  CHECK(state.garbled == 0);
  REQUIRE(state.sessions.size() == 1);
  CheckSame(state.sessions.at(3), MakeSession(3));
  REQUIRE(state.latches.size() == 1);
  CheckSame(state.latches.at(9), MakeEntry(9));
  CHECK(state.guards == std::set<Guard>{MakeGuard(1)});
  struct stat status {};
  REQUIRE(stat(directory.File().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
}

TEST_CASE("Who vouched for an SA comes back in every respect, and is taken back") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  for (const uint32_t spi : {1u, 0xffff'ffffu}) journal->Add(MakeVoucher(spi));
  state = ReadJournal(directory.Text());
  CHECK(state.garbled == 0);
  REQUIRE(state.vouchers.size() == 2);
  CHECK(state.vouchers.at(MakeVoucher(1).sa.key) == MakeVoucher(1));
  REQUIRE(journal->Compact(state));
  journal->EndVoucher(MakeVoucher(1).sa.key);
  state = ReadJournal(directory.Text());
  CHECK(state.garbled == 0);
  REQUIRE(state.vouchers.size() == 1);
  CHECK(state.vouchers.begin()->second == MakeVoucher(0xffff'ffff));
}

TEST_CASE("The greatest id is kept, whatever became of its latch") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  journal->Add(MakeEntry(9));
  journal->Add(MakeEntry(4));
  journal->EndLatch(9);
  state = ReadJournal(directory.Text());
  CHECK(state.last_id == 9);
  state.latches.clear();
  REQUIRE(journal->Compact(state));
  CHECK(ReadJournal(directory.Text()).last_id == 9);
  // A broken peer's is written down in its socket's line alone, and comes after that one's.
  CHECK(ReadJournal(JournalLine(MakeHeld(20))).last_id == 21);
}

TEST_CASE("A session of a broker that had no fences lacks one for that reason") {
  std::string line = JournalLine(MakeSession(3));
  const size_t from = line.find(",\"launched\"");
  const size_t to = line.rfind("}}");
  REQUIRE(from < to);
  line.erase(from, to - from);
  const JournalState state = ReadJournal(line);
  REQUIRE(state.sessions.contains(3));
  const SessionRecord& session = state.sessions.at(3);
  CHECK(session.fence == wire::FenceState::kLacking);
  CHECK(session.not_fenced == "the broker that began it had no fences");
}

TEST_CASE("A listener has neither remote end nor identity") {
  Entry entry;
  entry.latch.id = 1;
  entry.latch.state = State::kListener;
  entry.latch.flow.local = {Address::AnyOf(Family::kV6), 80};
  entry.requester.uid = 0;
  Guard any = MakeGuard(1);
  any.selector.source = Prefix{Address::AnyOf(Family::kV6), 0};
  any.selector.destination = Prefix{};
  entry.guards = {any};
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  journal->Add(entry);
  state = ReadJournal(directory.Text());
  REQUIRE(state.latches.size() == 1);
  CheckSame(state.latches.at(1), entry);
}

TEST_CASE("Peers that the administrator broke are in the line of their socket") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  Entry held = MakeHeld(1);
  Latch other = held.broken_peers.begin()->second;
  other.id = 3;
  other.flow.remote.port = 0;
  held.broken_peers[other.flow.remote] = other;
  journal->Add(held);
  state = ReadJournal(directory.Text());
  CHECK(state.garbled == 0);
  CheckSame(state.latches.at(1), held);
  REQUIRE(journal->Compact(state));
  CheckSame(ReadJournal(directory.Text()).latches.at(1), held);
  held.broken_peers.clear();
  journal->Add(held);
  CheckSame(ReadJournal(directory.Text()).latches.at(1), held);
}

TEST_CASE("What ended is gone, and the last word about a latch counts") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  for (const uint64_t id : {1, 2}) {
    journal->Add(MakeSession(id));
    journal->Add(MakeEntry(id));
    journal->Add(MakeGuard(static_cast<uint16_t>(id)));
  }
  Entry changed = MakeEntry(2);
  changed.latch.state = State::kEstablished;
  journal->Add(changed);
  journal->EndSession(1);
  journal->EndLatch(1);
  journal->EndGuard(MakeGuard(1));
  journal->EndLatch(17);
  state = ReadJournal(directory.Text());
  CHECK(state.garbled == 0);
  CHECK(state.sessions.size() == 1);
  REQUIRE(state.latches.size() == 1);
  CHECK(state.latches.at(2).latch.state == State::kEstablished);
  CHECK(state.guards == std::set<Guard>{MakeGuard(2)});
}

TEST_CASE("Compacting keeps what is there and drops what is not") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  CHECK_FALSE(journal->IsLong());
  while (!journal->IsLong()) {
    journal->Add(MakeEntry(1));
    journal->EndLatch(1);
  }
  CHECK(directory.Text().size() >= (4U << 20));
  JournalState now;
  now.sessions[3] = MakeSession(3);
  now.latches[9] = MakeEntry(9);
  now.guards = {MakeGuard(1), MakeGuard(2)};
  REQUIRE(journal->Compact(now));
  CHECK_FALSE(journal->IsLong());
  CHECK(directory.Text().size() < 10'000);
  journal->EndGuard(MakeGuard(2));  // goes into the new file
  state = ReadJournal(directory.Text());
  CHECK(state.garbled == 0);
  CheckSame(state.sessions.at(3), MakeSession(3));
  CheckSame(state.latches.at(9), MakeEntry(9));
  CHECK(state.guards == std::set<Guard>{MakeGuard(1)});
  CHECK(access((directory.File() + ".new").c_str(), F_OK) != 0);
}

}  // namespace
}  // namespace latchkey::broker
