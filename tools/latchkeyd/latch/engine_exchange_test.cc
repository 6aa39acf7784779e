// Every sequence of what two latched ends may live through, to a depth, from several beginnings:
// one message, event, word of the key manager or act of somebody at a time. What the same state has
// shown already is not tried again. The counts are asserted, so that nothing can quietly be left
// out: whoever changes what can happen counts anew.
#include "tools/latchkeyd/latch/engine_exchange.h"

#include <catch2/catch.hpp>
#include <functional>
#include <unordered_map>
#include <unordered_set>

namespace latchkey::broker {
namespace {

enum Ends : uint8_t { kAlice = 1, kBob = 2, kBoth = 3 };

struct Step {
  const char* name;
  Ends touches;
  bool (*possible)(const Exchange& x);
  void (*take)(Exchange& x);
};

bool AliceLives(const Exchange& x) { return x.alice.broker.kernel.sockets.at(x.alice.fd).held; }

State AlicesState(const Exchange& x) { return x.alice.broker.StateOf(x.alice.latch); }

bool Always(const Exchange&) { return true; }

bool KeysUp(const Exchange& x) { return x.alice.keys_up(); }

constexpr int64_t kTickMs = 8'000;  // two of them are more than any time of grace

const Step kSteps[] = {
    {"alice's kernel takes a message", kAlice,
     [](const Exchange& x) { return !x.alice.wire.empty(); }, [](Exchange& x) { x.alice.Apply(); }},
    {"alice reads an event", kAlice, [](const Exchange& x) { return !x.alice.events.empty(); },
     [](Exchange& x) { x.alice.Read(); }},
    {"alice learns names", kAlice, [](const Exchange& x) { return x.alice.Unnamed(); },
     [](Exchange& x) { x.alice.Learn(); }},
    {"bob's kernel takes a message", kBob, [](const Exchange& x) { return !x.bob.wire.empty(); },
     [](Exchange& x) { x.bob.Apply(); }},
    {"bob reads an event", kBob, [](const Exchange& x) { return !x.bob.events.empty(); },
     [](Exchange& x) { x.bob.Read(); }},
    {"bob learns names", kBob, [](const Exchange& x) { return x.bob.Unnamed(); },
     [](Exchange& x) { x.bob.Learn(); }},
    {"rekey", kBoth,
     [](const Exchange& x) { return x.paired() && x.alice.wire.empty() && x.bob.wire.empty(); },
     [](Exchange& x) { x.Rekey(); }},
    {"ike down", kBoth, [](const Exchange& x) { return x.paired(); },
     [](Exchange& x) { x.Down(); }},
    {"mallory comes", kAlice, [](const Exchange& x) { return !x.intruded(); },
     [](Exchange& x) { x.Intrude(); }},
    {"mallory goes", kAlice, [](const Exchange& x) { return x.intruded(); },
     [](Exchange& x) { x.Leave(); }},
    {"the SPD changes", kAlice, Always,
     [](Exchange& x) {
       FakeKernel& kernel = x.alice.broker.kernel;
       SpdEntry discard;
       discard.dir = 1;
       discard.block = discard.bare = true;
       kernel.spd = kernel.spd.empty() ? std::vector<SpdEntry>{discard} : std::vector<SpdEntry>{};
       x.alice.events.push_back({KernelEvent::Kind::kSpdChanged, {}});
     }},
    {"alice's keys are lost", kAlice, KeysUp, [](Exchange& x) { x.alice.KeysLost(); }},
    {"alice's keys are back", kAlice, [](const Exchange& x) { return !KeysUp(x); },
     [](Exchange& x) { x.alice.KeysBack(/*knowing=*/true); }},
    {"alice's keys are back, forgetful", kAlice, [](const Exchange& x) { return !KeysUp(x); },
     [](Exchange& x) { x.alice.KeysBack(/*knowing=*/false); }},
    {"alice's program closes", kAlice, AliceLives,
     [](Exchange& x) { x.alice.broker.CloseSocket(x.alice.fd); }},
    {"the administrator breaks", kAlice,
     [](const Exchange& x) {
       const Entry* entry = x.alice.entry();
       return entry != nullptr && !entry->admin_broken &&
              (entry->latch.state == State::kEstablished || entry->latch.suspends);
     },
     [](Exchange& x) { x.alice.broker.engine->AdminBreak(x.alice.latch); }},
    {"the administrator resumes", kAlice,
     [](const Exchange& x) {
       const Entry* entry = x.alice.entry();
       return entry != nullptr && entry->admin_broken && AlicesState(x) == State::kBroken &&
              entry->latch.suspends;
     },
     [](Exchange& x) { x.alice.broker.engine->AdminResume(x.alice.latch); }},
    {"time passes", kBoth, Always, [](Exchange& x) { x.Pass(kTickMs); }},
};

class Enumeration {
 public:
  Enumeration(Pin pin, policy::OnBreak on_break) : exchange_(pin, on_break) {}

  // Tries everything that may follow `beginning`, which is a list of names.
  void From(const std::vector<std::string>& beginning, int depth) {
    const Exchange::Saved start = exchange_.Save();
    for (const std::string& name : beginning) {
      bool taken = false;
      for (const Step& step : kSteps) {
        if (step.name != name) continue;
        REQUIRE(step.possible(exchange_));
        path_.push_back(step.name);
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
  size_t steps() const { return steps_; }
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
    for (const char* name : path_) path += std::string("  ") + name + "\n";
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
      ++ends_[AlicesState(exchange_)];
      const bool alices = finished_.insert("a" + exchange_.alice.Describe()).second;
      const bool bobs = finished_.insert("b" + exchange_.bob.Describe()).second;
      std::string left;
      if (alices) left += exchange_.alice.Finish();
      if (bobs) left += exchange_.bob.Finish();
      if (!left.empty()) Report("when all is over: " + left);
      exchange_.Restore(here, alices, bobs);
    }
    if (depth == 0) return;
    for (const Step& step : kSteps) {
      if (!step.possible(exchange_)) continue;
      path_.push_back(step.name);
      step.take(exchange_);
      ++steps_;
      Look();
      Try(depth - 1);
      path_.pop_back();
      exchange_.Restore(here, (step.touches & kAlice) != 0, (step.touches & kBob) != 0);
    }
  }

  Exchange exchange_;
  std::unordered_map<size_t, int> seen_;      // 1 + how deep it was tried from there
  std::unordered_set<std::string> finished_;  // what each end was like when it was ended
  std::vector<const char*> path_;
  std::map<State, size_t> ends_;
  size_t steps_ = 0;
  int failures_ = 0;
};

struct Beginning {
  std::vector<std::string> steps;
  int depth;
};

const std::vector<Beginning>& Beginnings() {
  static const std::string kTakes = "alice's kernel takes a message";
  static const std::string kReads = "alice reads an event";
  static const std::vector<Beginning> kBeginnings = {
      {{}, 6},
      // In the middle of a rekey that Alice began, and of one that she answers.
      {{"rekey", kTakes, kReads, kReads, "alice learns names"}, 4},
      {{"rekey", kTakes, kTakes, kTakes, kReads, kReads, kReads, kReads, "alice learns names",
        "bob's kernel takes a message", "bob's kernel takes a message",
        "bob's kernel takes a message", "rekey", kTakes, kReads},
       4},
      // A peer found dead; keys lost for a while, and forgotten; an intruder known as one.
      {{"ike down", kTakes, kReads}, 4},
      {{"alice's keys are lost", "time passes", "alice's keys are back, forgetful", "rekey", kTakes,
        kReads, kReads},
       4},
      {{"mallory comes", kReads, kReads, "alice learns names"}, 4},
      // An intruder of whom nobody can tell, beside a good new pair.
      {{"mallory comes", kReads, kReads, "alice's keys are lost",
        "alice's keys are back, forgetful", "rekey", kTakes, kReads, kReads},
       4},
  };
  return kBeginnings;
}

TEST_CASE("whatever happens next, no latch serves another peer, and nothing is left behind") {
  struct Case {
    Pin pin;
    policy::OnBreak on_break;
    size_t states, steps;
  };
  const Case c = GENERATE(Case{Pin::kSpi, policy::OnBreak::kReset, 38'878, 85'241},
                          Case{Pin::kSpi, policy::OnBreak::kSuspend, 42'675, 95'509},
                          Case{Pin::kReqid, policy::OnBreak::kReset, 38'420, 84'647},
                          Case{Pin::kReqid, policy::OnBreak::kSuspend, 42'236, 94'955});
  Enumeration all(c.pin, c.on_break);
  for (const Beginning& beginning : Beginnings()) all.From(beginning.steps, beginning.depth);
  CAPTURE(c.pin, c.on_break);
  CHECK(all.states() == c.states);
  CHECK(all.steps() == c.steps);
  for (const State state : {State::kEstablished, State::kBroken, State::kClosed}) {
    CHECK(all.ends().at(state) > 100);
  }
}

}  // namespace
}  // namespace latchkey::broker
