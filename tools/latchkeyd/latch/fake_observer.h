// An Observer for tests: keeps what it hears, in order, as text.
#ifndef TOOLS_LATCHKEYD_LATCH_FAKE_OBSERVER_H_
#define TOOLS_LATCHKEYD_LATCH_FAKE_OBSERVER_H_

#include <map>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/observer.h"

namespace latchkey::broker {

class FakeObserver : public Observer {
 public:
  void OnState(const Entry& entry, State from) override {
    const State to = entry.latch.state;
    log.push_back(std::string("latch ") + std::to_string(entry.latch.id) + " " +
                  (from == to && to != State::kBroken ? "new" : StateName(from)) + " -> " +
                  StateName(to) + ": " + wire::ReasonWord(entry.latch.reason));
    if (from != to) ++told[{entry.latch.id, to}];
  }
  void OnStall(const Entry& entry, bool stalled) override {
    log.push_back("latch " + std::to_string(entry.latch.id) + (stalled ? " stalls" : " moves"));
  }
  void OnMove(const Entry&) override { ++moves; }
  void OnVoucher(const Voucher& voucher) override { vouchers[voucher.sa.key] = voucher; }
  void OnVoucherEnd(const SaKey& key) override { vouchers.erase(key); }
  void OnGuard(const Guard& guard, bool adding) override {
    if (adding) {
      ++journal[guard];
    } else {
      journal.erase(guard);
    }
  }
  void OnAnswer(uint64_t ticket, const Answer& answer) override { answers[ticket] = answer; }
  void OnRefusal(const Client&, const Flow&, wire::Reason reason,
                 const std::string& detail) override {
    log.push_back(std::string("refused: ") + wire::ReasonWord(reason) + " " + detail);
    last_refusal = reason;
  }
  void OnSystem() override { ++systems; }
  void OnWarning(const std::string& text) override {
    log.push_back("warning: " + text);
    ++warnings;
  }

  std::vector<std::string> log;
  std::map<uint64_t, Answer> answers;              // by ticket
  std::map<std::pair<uint64_t, State>, int> told;  // how often each end was told
  std::map<Guard, int> journal;
  std::map<SaKey, Voucher> vouchers;
  int moves = 0;
  wire::Reason last_refusal = wire::Reason::kNone;
  int warnings = 0;
  int systems = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FAKE_OBSERVER_H_
