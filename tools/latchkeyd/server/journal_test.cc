#include "tools/latchkeyd/server/journal.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace latchkey::broker {
namespace {

struct Directory {
  Directory() {
    char name[] = "/tmp/journal_test.XXXXXX";
    path = mkdtemp(name);
  }
  ~Directory() {
    unlink(File().c_str());
    rmdir(path.c_str());
  }
  std::string File() const { return path + "/journal"; }
  std::string Text() const {
    std::ifstream file(File());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string path;
};

SessionRecord MakeSession(uint64_t id) {
  SessionRecord session;
  session.id = id;
  session.token = std::string(63, 'a') + "\xcf";  // hex, in truth
  session.uid = 1000;
  session.program = "/opt/caf\xe9/\xc3\xa9/app";  // not UTF-8 as a whole
  session.policy_name = "app \"one\"\n.toml";
  session.policy_text = "latchkey = 1\n\xf0\x9f\x94\x91 \\";
  session.signature = "untrusted comment: \xff\n";
  session.has_policy = true;
  return session;
}

Guard MakeGuard(uint16_t port) {
  Guard guard;
  guard.out = false;
  guard.action = Guard::Action::kEsp;
  guard.reqid = 7;
  guard.priority = 3;
  guard.mark = 0x80000000;
  guard.selector.family = Family::kV6;
  guard.selector.source = *Prefix::Parse("fd00::/8");
  guard.selector.destination = *Prefix::Parse("fd00::1");
  guard.selector.protocol = 6;
  guard.selector.destination_port = port;
  guard.selector.destination_mask = 0xffff;
  return guard;
}

Entry MakeEntry(uint64_t id) {
  Entry entry;
  Latch& latch = entry.latch;
  latch.id = id;
  latch.state = State::kBroken;
  latch.reason = Reason::kConflictSa;
  latch.flow.direction = Direction::kIn;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 443};
  latch.flow.remote = {*Address::Parse("10.9.0.2"), 40'000};
  latch.identity = {"\xff b", "me", "manual"};
  latch.protection = {SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
  latch.pin = Pin::kSpi;
  latch.implicit = true;
  latch.clear = true;
  latch.suspends = true;
  latch.reqid = 42;
  latch.spi_in = 0xdeadbeef;
  latch.spi_out = 2;
  latch.program = "/bin/\x80";
  latch.pid = 99;
  latch.uid = 1000;
  latch.policy = "app";
  latch.rule = "rule 1";
  latch.since = 1'700'000'000;
  entry.session = 3;
  entry.hint = SocketHint{~uint64_t{0} - 1, 77, 99, 5};
  entry.v6_socket = true;
  entry.static_reqid = true;
  entry.refused = true;
  entry.created = 12'345;
  entry.requester = policy::Requester{1000, policy::Grants::All()};
  entry.guards = {MakeGuard(1), MakeGuard(2)};
  entry.guards[1].mode = Mode::kTunnel;
  entry.guards[1].ends = {*Address::Parse("fd00::7"), *Address::Parse("fd00::8")};
  latch.peering = {
      {*Address::Parse("10.9.0.7"), 4500}, {*Address::Parse("10.9.0.8"), 1}, true, false};
  return entry;
}

void CheckSame(const SessionRecord& a, const SessionRecord& b) {
  CHECK(a.id == b.id);
  CHECK(a.token == b.token);
  CHECK(a.uid == b.uid);
  CHECK(a.program == b.program);
  CHECK(a.policy_name == b.policy_name);
  CHECK(a.policy_text == b.policy_text);
  CHECK(a.has_policy == b.has_policy);
  CHECK(a.signature == b.signature);
}

void CheckSame(const Entry& a, const Entry& b) {
  CHECK(a.latch.id == b.latch.id);
  CHECK(a.latch.state == b.latch.state);
  CHECK(a.latch.reason == b.latch.reason);
  CHECK(a.latch.flow == b.latch.flow);
  CHECK(a.latch.identity == b.latch.identity);
  CHECK(a.latch.protection == b.latch.protection);
  CHECK(a.latch.pin == b.latch.pin);
  CHECK(a.latch.implicit == b.latch.implicit);
  CHECK(a.latch.clear == b.latch.clear);
  CHECK(a.latch.suspends == b.latch.suspends);
  CHECK(a.latch.peering == b.latch.peering);
  CHECK(a.latch.reqid == b.latch.reqid);
  CHECK(a.latch.spi_in == b.latch.spi_in);
  CHECK(a.latch.spi_out == b.latch.spi_out);
  CHECK(a.latch.program == b.latch.program);
  CHECK(a.latch.pid == b.latch.pid);
  CHECK(a.latch.uid == b.latch.uid);
  CHECK(a.latch.policy == b.latch.policy);
  CHECK(a.latch.rule == b.latch.rule);
  CHECK(a.latch.since == b.latch.since);
  CHECK(a.session == b.session);
  CHECK(a.hint.cookie == b.hint.cookie);
  CHECK(a.hint.inode == b.hint.inode);
  CHECK(a.hint.pid == b.hint.pid);
  CHECK(a.hint.fd == b.hint.fd);
  CHECK(a.v6_socket == b.v6_socket);
  CHECK(a.static_reqid == b.static_reqid);
  CHECK(a.refused == b.refused);
  CHECK(a.created == b.created);
  CHECK(a.requester.uid == b.requester.uid);
  CHECK(a.requester.grants == b.requester.grants);
  CHECK(a.guards == b.guards);
}

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

Voucher MakeVoucher(uint32_t spi) {
  Voucher voucher;
  Sa& sa = voucher.sa;
  sa.key = {*Address::Parse("10.9.0.2"), spi, SaProtocol::kEsp};
  sa.source = *Address::Parse("10.9.0.1");
  sa.reqid = 65'600;
  sa.selector = MakeGuard(7).selector;
  sa.protection = {SaProtocol::kEsp, Mode::kTunnel, "aes-cbc", "hmac-sha2-256", 128, true, true};
  sa.mark = 4;
  sa.mark_mask = 12;
  sa.if_id = 3;
  sa.offload = Offload::kCrypto;
  sa.added = 1'700'000'001;
  voucher.traffic = {MakeGuard(3).selector, Selector{}};
  voucher.identity = {"CN=\xff\"b\"", "a.lab", "pubkey"};
  return voucher;
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
}

TEST_CASE("After a garbled line nobody vouches, and the latch that it was about is in doubt") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  Entry resets = MakeEntry(1);
  resets.latch.suspends = false;
  journal->Add(resets);
  journal->Add(MakeEntry(2));
  journal->Add(MakeVoucher(1));
  const std::string good = directory.Text();
  const auto suspects = [&](const std::string& line) {
    const JournalState read = ReadJournal(good + line + "\n" + JournalLine(MakeVoucher(2)));
    CHECK(read.garbled == 1);
    CHECK(read.latches.size() == 2);
    CHECK(read.vouchers.size() == 1);  // what came after counts
    return read.suspects;
  };
  using Ids = std::set<uint64_t>;
  CHECK(suspects("{\"kind\":\"latch\",\"what\":{\"id\":1,\"sta#e\":4") == Ids{1});
  CHECK(suspects("{\"kind\":\"guard-end\",\"what\":#") == Ids{});
  // One that suspends could be had back: others are cut off for good.
  CHECK(suspects("####") == Ids{2});
  CHECK(suspects("{\"kind\":\"latch\",\"what\":{\"id\":1") == Ids{2});
  CHECK(ReadJournal("{\"kind\":\"latch\",\"what\":{\"id\":77,#\n").last_id == 77);
  CHECK(ReadJournal(good + "#\n" + JournalLine(MakeEntry(2))).suspects == Ids{});
  CHECK(ReadJournal(good + "#\n" + JournalEndLine("latch", 2)).suspects == Ids{});
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

TEST_CASE("Torn at any octet, the whole lines before it count and later ones are not hurt") {
  const Directory directory;
  JournalState state;
  {
    Result<Journal> journal = Journal::Open(directory.File(), state);
    REQUIRE(journal);
    journal->Add(MakeSession(1));
    journal->Add(MakeGuard(1));
    journal->Add(MakeEntry(1));
  }
  const std::string whole = directory.Text();
  const size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (size_t length = last; length < whole.size(); ++length) {
    CAPTURE(length);
    const JournalState torn = ReadJournal(std::string_view(whole).substr(0, length));
    REQUIRE(torn.garbled == 0);
    REQUIRE(torn.sessions.size() == 1);
    REQUIRE(torn.guards.size() == 1);
    REQUIRE(torn.latches.empty());

    REQUIRE(truncate(directory.File().c_str(), static_cast<off_t>(length)) == 0);
    Result<Journal> journal = Journal::Open(directory.File(), state);
    REQUIRE(journal);
    journal->Add(MakeSession(2));
    state = ReadJournal(directory.Text());
    REQUIRE(state.sessions.size() == 2);
    REQUIRE(state.latches.empty());
    std::ofstream(directory.File(), std::ios::trunc) << whole;
  }
  REQUIRE(ReadJournal(whole).latches.size() == 1);
}

TEST_CASE("Garbled lines are left out, counted, and hurt no other") {
  const Directory directory;
  JournalState state;
  {
    Result<Journal> journal = Journal::Open(directory.File(), state);
    REQUIRE(journal);
    journal->Add(MakeEntry(1));
  }
  const std::string good = directory.Text();
  const auto garbled = [&](const std::string& line) {
    CAPTURE(line);
    const JournalState read = ReadJournal(line + "\n" + good);
    CHECK(read.garbled == 1);
    CHECK(read.latches.size() == 1);
    CHECK(read.sessions.empty());
    CHECK(read.guards.empty());
  };
  garbled("}");
  garbled("null");
  garbled("[]");
  garbled("{\"kind\":\"session\"}");
  garbled("{\"kind\":\"session\",\"what\":{}}");
  garbled("{\"kind\":7,\"what\":1}");
  garbled("{\"kind\":\"unheard-of\",\"what\":1}");
  garbled("{\"kind\":\"latch-end\",\"what\":\"x\"}");
  garbled("{\"kind\":\"session-end\",\"what\":1");
  garbled(std::string("{\"kind\":\"latch-end\",\"what\":\0}", 31));
  // A value out of its range is no latch either.
  std::string wrong = good.substr(0, good.size() - 1);
  const std::string state_field = "\"state\":3";
  REQUIRE(wrong.find(state_field) != std::string::npos);
  wrong.replace(wrong.find(state_field), state_field.size(), "\"state\":9");
  garbled(wrong);
  CHECK(ReadJournal("\n\n" + good).garbled == 0);
  CHECK(ReadJournal("").garbled == 0);
}

TEST_CASE("Any octet of a line changed gives a line left out or a journal that reads") {
  const Directory directory;
  JournalState state;
  {
    Result<Journal> journal = Journal::Open(directory.File(), state);
    REQUIRE(journal);
    journal->Add(MakeSession(1));
    journal->Add(MakeEntry(1));
    journal->Add(MakeGuard(1));
  }
  const std::string whole = directory.Text();
  for (size_t place = 0; place < whole.size(); ++place) {
    for (const char octet : {'"', '9', '\xff'}) {
      std::string changed = whole;
      changed[place] = octet;
      const JournalState read = ReadJournal(changed);
      // One line holds one thing: at least two of the three are always there.
      REQUIRE(read.sessions.size() + read.latches.size() + read.guards.size() >=
              (whole[place] == '\n' ? 1U : 2U));
    }
  }
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

TEST_CASE("A record that cannot be written is told, and the next one is not lost with it") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  journal->Add(MakeSession(1));
  // A limit in the midst of the next line, as a full file system would have it.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = directory.Text().size() + 20;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  journal->Add(MakeSession(2));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(journal->TakeFailure());
  CHECK_FALSE(journal->TakeFailure());
  journal->Add(MakeSession(3));
  state = ReadJournal(directory.Text());
  CHECK(state.sessions.contains(1));
  CHECK_FALSE(state.sessions.contains(2));
  CHECK(state.sessions.contains(3));
}

}  // namespace
}  // namespace latchkey::broker
