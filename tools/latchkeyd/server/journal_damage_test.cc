// Journals that are torn, garbled, or cannot be written.
#include "tools/latchkeyd/server/journal_fixture.h"

namespace latchkey::broker {
namespace {

TEST_CASE("After a garbled line nobody vouches, and the latch that it was about is in doubt") {
  const Directory directory;
  JournalState state;
  Result<Journal> journal = Journal::Open(directory.File(), state);
  REQUIRE(journal);
  Entry resets = MakeEntry(1);
  resets.latch.suspends = false;
  journal->Add(resets);
  journal->Add(MakeEntry(2));
  journal->Add(MakeHeld(5));
  journal->Add(MakeVoucher(1));
  const std::string good = directory.Text();
  const auto suspects = [&](const std::string& line) {
    const JournalState read = ReadJournal(good + line + "\n" + JournalLine(MakeVoucher(2)));
    CHECK(read.garbled == 1);
    CHECK(read.latches.size() == 3);
    CHECK(read.vouchers.size() == 1);  // what came after counts
    return read.suspects;
  };
  using Ids = std::set<uint64_t>;
  CHECK(suspects("{\"kind\":\"latch\",\"what\":{\"id\":1,\"sta#e\":4") == Ids{1});
  CHECK(suspects("{\"kind\":\"guard-end\",\"what\":#") == Ids{});
  // One that suspends could be had back, as could a peer: others are cut off for good.
  CHECK(suspects("####") == Ids{2, 5});
  CHECK(suspects("{\"kind\":\"latch\",\"what\":{\"id\":1") == Ids{2, 5});
  CHECK(ReadJournal("{\"kind\":\"latch\",\"what\":{\"id\":77,#\n").last_id == 77);
  CHECK(ReadJournal(good + "#\n" + JournalLine(MakeEntry(2))).suspects == Ids{5});
  CHECK(ReadJournal(good + "#\n" + JournalEndLine("latch", 2)).suspects == Ids{5});
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
