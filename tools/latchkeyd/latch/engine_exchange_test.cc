// Every sequence of what two latched ends may live through, to a depth, from several beginnings:
// one step at a time, where a step is one message that reaches a kernel, one event that a broker
// reads, the key manager's names for all new SAs of one end, a lapse of eight seconds, or one act
// of somebody (a rekey or the end of the IKE SA, whose messages then wait on the wire; a change of
// the SPD, an intruder's SA, the key manager's loss or return, the program's or the administrator's
// close). Alice's end is one of connect(), Bob's of accept(). Of each pin and disposition is tried:
//   acts at Alice's end alone, or at Bob's: depth 6 from the latched state, and depth 5 from each
//   of
//     the beginnings below, most of which lie in the middle of a rekey;
//   acts at both: depth 5, and depth 4.
// A whole rekey is about a dozen such steps, so what takes two rekeys to go wrong is seen from
// these beginnings only. Messages and events of both ends are always among the steps. What the same
// state has shown already is not tried again. The counts are asserted, so that nothing can quietly
// be left out: whoever changes what can happen counts anew.
#include "tools/latchkeyd/latch/engine_exchange.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <unordered_map>
#include <unordered_set>

namespace latchkey::broker {
namespace {

enum Ends : uint8_t { kAlice = 1, kBob = 2, kBoth = 3 };

struct Step {
  std::string name;
  Ends touches;
  bool (*possible)(const Exchange& x);
  void (*take)(Exchange& x);
};

constexpr int64_t kTickMs = 8'000;  // two of them are more than any time of grace

bool Always(const Exchange&) { return true; }

// Of one end, as each may be.
template <Side Exchange::*kEnd>
bool KeysUp(const Exchange& x) {
  return (x.*kEnd).keys_up();
}

template <Side Exchange::*kEnd>
bool KeysDown(const Exchange& x) {
  return !(x.*kEnd).keys_up();
}

template <Side Exchange::*kEnd>
void AddMessages(std::vector<Step>& steps, const std::string& who, Ends end) {
  steps.push_back({who + "'s kernel takes a message", end,
                   [](const Exchange& x) { return !(x.*kEnd).wire.empty(); },
                   [](Exchange& x) { (x.*kEnd).Apply(); }});
  steps.push_back({who + " reads an event", end,
                   [](const Exchange& x) { return !(x.*kEnd).events.empty(); },
                   [](Exchange& x) { (x.*kEnd).Read(); }});
  steps.push_back({who + " learns names", end,
                   [](const Exchange& x) { return (x.*kEnd).Unnamed(); },
                   [](Exchange& x) { (x.*kEnd).Learn(); }});
}

template <Side Exchange::*kEnd>
void AddActs(std::vector<Step>& steps, const std::string& who, Ends end) {
  steps.push_back({"mallory comes to " + who, end,
                   [](const Exchange& x) { return (x.*kEnd).intruder.empty(); },
                   [](Exchange& x) { x.Intrude(x.*kEnd); }});
  steps.push_back({"mallory leaves " + who, end,
                   [](const Exchange& x) { return !(x.*kEnd).intruder.empty(); },
                   [](Exchange& x) { Exchange::Leave(x.*kEnd); }});
  steps.push_back(
      {who + "'s SPD changes", end, Always, [](Exchange& x) { (x.*kEnd).ChangeSpd(); }});
  steps.push_back(
      {who + "'s keys are lost", end, KeysUp<kEnd>, [](Exchange& x) { (x.*kEnd).KeysLost(); }});
  steps.push_back({who + "'s keys are back", end, KeysDown<kEnd>,
                   [](Exchange& x) { (x.*kEnd).KeysBack(/*knowing=*/true); }});
  steps.push_back({who + "'s keys are back, forgetful", end, KeysDown<kEnd>,
                   [](Exchange& x) { (x.*kEnd).KeysBack(/*knowing=*/false); }});
  steps.push_back(
      {who + "'s program closes", end,
       [](const Exchange& x) { return (x.*kEnd).broker.kernel.sockets.at((x.*kEnd).fd).held; },
       [](Exchange& x) { (x.*kEnd).broker.CloseSocket((x.*kEnd).fd); }});
  steps.push_back({who + "'s administrator breaks", end,
                   [](const Exchange& x) {
                     const Entry* entry = (x.*kEnd).entry();
                     return entry != nullptr && !entry->admin_broken &&
                            (entry->latch.state == State::kEstablished || entry->latch.suspends);
                   },
                   [](Exchange& x) { (x.*kEnd).broker.engine->AdminBreak((x.*kEnd).latch); }});
  steps.push_back({who + "'s administrator resumes", end,
                   [](const Exchange& x) {
                     const Entry* entry = (x.*kEnd).entry();
                     return entry != nullptr && entry->admin_broken &&
                            entry->latch.state == State::kBroken && entry->latch.suspends;
                   },
                   [](Exchange& x) { (x.*kEnd).broker.engine->AdminResume((x.*kEnd).latch); }});
}

// What may happen, where acts are at these ends.
std::vector<Step> StepsWith(Ends acts) {
  std::vector<Step> steps;
  AddMessages<&Exchange::alice>(steps, "alice", kAlice);
  AddMessages<&Exchange::bob>(steps, "bob", kBob);
  steps.push_back(
      {"rekey", kBoth,
       [](const Exchange& x) { return x.paired() && x.alice.wire.empty() && x.bob.wire.empty(); },
       [](Exchange& x) { x.Rekey(); }});
  steps.push_back({"ike down", kBoth, [](const Exchange& x) { return x.paired(); },
                   [](Exchange& x) { x.Down(); }});
  steps.push_back({"time passes", kBoth, Always, [](Exchange& x) { x.Pass(kTickMs); }});
  if ((acts & kAlice) != 0) AddActs<&Exchange::alice>(steps, "alice", kAlice);
  if ((acts & kBob) != 0) AddActs<&Exchange::bob>(steps, "bob", kBob);
  return steps;
}

class Enumeration {
 public:
  Enumeration(Pin pin, policy::OnBreak on_break, Ends acts)
      : exchange_(pin, on_break, /*bob_first=*/acts == kBob), steps_(StepsWith(acts)) {}

  // Tries everything that may follow `beginning`, which is a list of names.
  void From(const std::vector<std::string>& beginning, int depth) {
    const Exchange::Saved start = exchange_.Save();
    for (const std::string& name : beginning) {
      bool taken = false;
      for (const Step& step : steps_) {
        if (step.name != name) continue;
        REQUIRE(step.possible(exchange_));
        path_.push_back(&step.name);
        step.take(exchange_);
        taken = true;
      }
      REQUIRE(taken);
    }
    Look();
    Try(depth);
    path_.clear();
    exchange_.Restore(start);
  }

  size_t states() const { return seen_.size(); }
  size_t steps() const { return taken_; }
  const std::map<State, size_t>& ends() const { return ends_; }

 private:
  // Says what is wrong with how it is now, and how it came so.
  void Look() {
    std::string wrong = exchange_.Check();
    if (wrong.empty()) return;
    Report(wrong);
  }

  void Report(const std::string& wrong) {
    std::string path;
    for (const std::string* name : path_) path += "  " + *name + "\n";
    FAIL_CHECK(wrong << "after\n" << path);
    if (++failures_ > 3) FAIL("and so on");
  }

  void Try(int depth) {
    int& tried = seen_[std::hash<std::string>()(exchange_.Describe())];
    const bool fresh = tried == 0;
    if (tried > depth) return;
    tried = depth + 1;
    Exchange::Saved here = exchange_.Save();
    if (fresh) {
      ++ends_[exchange_.alice.broker.StateOf(exchange_.alice.latch)];
      ++ends_[exchange_.bob.broker.StateOf(exchange_.bob.latch)];
      const bool alices = finished_.insert("a" + exchange_.alice.Describe()).second;
      const bool bobs = finished_.insert("b" + exchange_.bob.Describe()).second;
      std::string left;
      if (alices) left += exchange_.alice.Finish();
      if (bobs) left += exchange_.bob.Finish();
      if (!left.empty()) Report("when all is over: " + left);
      exchange_.Restore(here, alices, bobs);
    }
    if (depth == 0) return;
    for (const Step& step : steps_) {
      if (!step.possible(exchange_)) continue;
      path_.push_back(&step.name);
      step.take(exchange_);
      ++taken_;
      Look();
      Try(depth - 1);
      path_.pop_back();
      exchange_.Restore(here, (step.touches & kAlice) != 0, (step.touches & kBob) != 0);
    }
  }

  Exchange exchange_;
  const std::vector<Step> steps_;
  std::unordered_map<size_t, int> seen_;      // 1 + how deep it was tried from there
  std::unordered_set<std::string> finished_;  // what each end was like when it was ended
  std::vector<const std::string*> path_;
  std::map<State, size_t> ends_;
  size_t taken_ = 0;
  int failures_ = 0;
};

struct Beginning {
  std::vector<std::string> steps;
  int depth;
};

// `who` is where the acts are, `whom` the other end; `later`: the depth of all but the first.
std::vector<Beginning> Beginnings(const std::string& who, const std::string& whom, int depth,
                                  int later) {
  const std::string takes = who + "'s kernel takes a message";
  const std::string reads = who + " reads an event";
  const std::string learns = who + " learns names";
  const std::string they_take = whom + "'s kernel takes a message";
  const std::string forgets = who + "'s keys are back, forgetful";
  // The first rekey is begun by `who`, the second by `whom`.
  return {
      {{}, depth},
      {{"rekey", takes, reads, reads, learns}, later},
      {{"rekey", takes, takes, takes, reads, reads, reads, reads, learns, they_take, they_take,
        they_take, "rekey", takes, reads},
       later},
      // A peer found dead; keys lost for a while, and forgotten; an intruder known as one.
      {{"ike down", takes, reads}, later},
      {{who + "'s keys are lost", "time passes", forgets, "rekey", takes, reads}, later},
      {{"mallory comes to " + who, reads, reads, learns}, later},
      // An intruder of whom nobody can tell, beside a good new pair.
      {{"mallory comes to " + who, reads, reads, who + "'s keys are lost", forgets, "rekey", takes,
        reads},
       later},
  };
}

// Bazel runs the cases in as many processes at once as BUILD says (shard_count).
size_t Shard(const char* variable, size_t otherwise) {
  const char* value = std::getenv(variable);
  return value != nullptr ? std::strtoul(value, nullptr, 10) : otherwise;
}

struct Case {
  Pin pin;
  policy::OnBreak on_break;
  Ends acts;
  size_t states, steps;
};

constexpr Case kCases[] = {
    {Pin::kSpi, policy::OnBreak::kReset, kAlice, 78'078, 179'377},
    {Pin::kSpi, policy::OnBreak::kSuspend, kAlice, 85'747, 201'055},
    {Pin::kReqid, policy::OnBreak::kReset, kAlice, 76'787, 177'167},
    {Pin::kReqid, policy::OnBreak::kSuspend, kAlice, 84'617, 199'124},
    {Pin::kSpi, policy::OnBreak::kSuspend, kBob, 87'147, 203'456},
    {Pin::kReqid, policy::OnBreak::kReset, kBob, 78'436, 179'706},
    {Pin::kReqid, policy::OnBreak::kSuspend, kBob, 86'033, 201'546},
    {Pin::kSpi, policy::OnBreak::kReset, kBob, 79'711, 181'897},
    {Pin::kReqid, policy::OnBreak::kReset, kBoth, 85'251, 196'873},
    {Pin::kReqid, policy::OnBreak::kSuspend, kBoth, 92'124, 215'025},
    {Pin::kSpi, policy::OnBreak::kReset, kBoth, 85'581, 197'303},
    {Pin::kSpi, policy::OnBreak::kSuspend, kBoth, 92'437, 215'426},
};

TEST_CASE("whatever happens next, no latch serves another peer, and nothing is left behind") {
  const size_t shards = Shard("TEST_TOTAL_SHARDS", 1);
  const size_t shard = Shard("TEST_SHARD_INDEX", 0);
  if (const char* status = std::getenv("TEST_SHARD_STATUS_FILE")) std::ofstream(status).flush();
  for (size_t i = shard; i < std::size(kCases); i += shards) {
    const Case& c = kCases[i];
    const bool both = c.acts == kBoth;
    Enumeration all(c.pin, c.on_break, c.acts);
    const std::vector<Beginning> beginnings =
        c.acts == kBob ? Beginnings("bob", "alice", 6, 5)
                       : Beginnings("alice", "bob", both ? 5 : 6, both ? 4 : 5);
    for (const Beginning& beginning : beginnings) all.From(beginning.steps, beginning.depth);
    INFO("case " << i << ": " << all.states() << ", " << all.steps());
    CHECK(all.states() == c.states);
    CHECK(all.steps() == c.steps);
    for (const State state : {State::kEstablished, State::kBroken, State::kClosed}) {
      CHECK(all.ends().at(state) > 100);
    }
  }
}

}  // namespace
}  // namespace latchkey::broker
