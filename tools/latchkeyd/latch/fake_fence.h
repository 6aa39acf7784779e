// A fence for tests: remembers what it was told.
#ifndef TOOLS_LATCHKEYD_LATCH_FAKE_FENCE_H_
#define TOOLS_LATCHKEYD_LATCH_FAKE_FENCE_H_

#include <sys/socket.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/fence_port.h"

namespace latchkey::broker {

class FakeFence : public FencePort {
 public:
  std::string lacking;
  bool refuses = false;  // Enclose() fails
  std::map<uint64_t, int32_t> standing;
  std::set<uint64_t> empty;  // of these nothing is left
  struct Rules {
    uint32_t count = 0;
    wire::Settle otherwise = wire::Settle::kAsk;
    FenceIncoming incoming;
  };
  std::map<uint64_t, Rules> rules;
  int told = 0;                               // rules, so often
  std::map<uint64_t, FenceDecision> decided;  // by cookie
  std::vector<FenceStop> stops;

  // What was decided about a socket; null: nothing.
  const FenceDecision* Of(int fd) const {
    const auto found = decided.find(CookieOf(fd));
    return found == decided.end() ? nullptr : &found->second;
  }

  std::string Lacking() const override { return lacking; }
  Result<void> Enclose(uint64_t id, int32_t pid) override {
    if (refuses) return Fail(Reason::kKernelRefused, "fence", "no");
    standing[id] = pid;
    return {};
  }
  Result<void> SetRules(uint64_t id, const wire::Page& page, FenceIncoming incoming) override {
    rules[id] = {page.rule_count, page.otherwise, incoming};
    ++told;
    return {};
  }
  Result<void> Decide(int fd, const FenceDecision& decision) override {
    decided[CookieOf(fd)] = decision;
    return {};
  }
  void Forget(int fd) override { decided.erase(CookieOf(fd)); }
  std::vector<uint64_t> Fences() const override {
    std::vector<uint64_t> ids;
    for (const auto& [id, pid] : standing) ids.push_back(id);
    return ids;
  }
  bool Release(uint64_t id) override {
    if (standing.contains(id) && !empty.contains(id)) return false;
    standing.erase(id);
    rules.erase(id);
    return true;
  }
  std::vector<FenceStop> TakeStops() override { return std::exchange(stops, {}); }

 private:
  static uint64_t CookieOf(int fd) {
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length);
    return cookie;
  }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FAKE_FENCE_H_
