// A KeyManager for tests: who is behind an SA is what the test wrote down, by reqid or by SPI, and
// negotiations end as the test says.
#ifndef TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_
#define TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker {

class FakeKeyManager : public KeyManager {
 public:
  Identified Identify(const Sa& sa, bool inbound) override {
    Identified who = unknown;
    if (auto it = by_reqid.find(sa.reqid); it != by_reqid.end()) who = it->second;
    if (auto it = by_spi.find(sa.key.spi); it != by_spi.end()) who = it->second;
    if (!inbound) return who;
    for (Selector& selector : who.verified.traffic) selector = Mirrored(selector);
    return who;
  }

  Result<uint64_t> Acquire(const AcquireRequest& request) override {
    ++asked;
    if (!negotiates) return Fail(Reason::kNoSa, "acquire SA", "manual keys");
    if (request.demand.unique) acquired.push_back(request.flow);
    const Address remote = request.flow.remote.address;
    auto [it, fresh] = tickets.emplace(remote, next_ticket);
    if (fresh) ++next_ticket;
    ++waiting[it->second];
    return it->second;
  }
  void Abandon(uint64_t ticket) override { Leave(ticket); }
  void Release(const Flow& flow) override { released.push_back(flow); }
  uint64_t AskKeys(const Identity& identity) override {
    asked_keys.push_back(identity);
    return has_keys ? next_ticket++ : 0;
  }
  std::vector<KeyEvent> TakeEvents() override { return std::exchange(events, {}); }

  void Name(uint32_t reqid, const std::string& peer) {
    by_reqid[reqid] = Identified::Known({Identity{peer, "me", "manual"}, true, {}});
  }

  // As Name(), of a tunnel for packets between 192.168.1.1 (us) and `inside`.
  void NameTunnel(uint32_t reqid, const std::string& peer, const std::string& inside,
                  const std::string& me = "me") {
    by_reqid[reqid] = Tunnel(peer, inside, me);
  }
  static Identified Tunnel(const std::string& peer, const std::string& inside,
                           const std::string& me = "me") {
    Selector selector;
    selector.family = Family::kV4;
    selector.source = *Prefix::Parse("192.168.1.1");
    selector.destination = *Prefix::Parse(inside);
    return Identified::Known({Identity{peer, me, "manual"}, true, {}, {selector}});
  }

  // Ends the negotiation with `remote`.
  void Finish(const std::string& remote, Reason reason = Reason::kNone) {
    auto it = tickets.find(*Address::Parse(remote));
    if (it == tickets.end()) return;
    KeyEvent event;
    event.kind = KeyEvent::Kind::kAcquired;
    event.ticket = it->second;
    event.reason = reason;
    events.push_back(event);
    waiting.erase(it->second);
    tickets.erase(it);
  }

  std::map<uint32_t, Identified> by_reqid;
  std::map<uint32_t, Identified> by_spi;
  Identified unknown = Identified::Nobody();
  bool negotiates = false;
  int asked = 0;                        // for SAs, so often
  std::map<Address, uint64_t> tickets;  // negotiations under way
  std::map<uint64_t, int> waiting;      // how many wait for each
  uint64_t next_ticket = 1;
  std::vector<Flow> acquired;  // under sharing = "unique"
  std::vector<Flow> released;
  bool has_keys = false;
  std::vector<Identity> asked_keys;
  std::vector<KeyEvent> events;

 private:
  void Leave(uint64_t ticket) {
    auto it = waiting.find(ticket);
    if (it == waiting.end() || --it->second > 0) return;
    waiting.erase(it);
    std::erase_if(tickets, [ticket](const auto& each) { return each.second == ticket; });
  }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_
