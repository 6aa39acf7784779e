// A ViciKeyManager and the charon that it talks to, one step at a time, with a clock by hand.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_FIXTURE_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_FIXTURE_H_

#include <poll.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/keymgr/vici/fake_charon.h"
#include "tools/latchkeyd/keymgr/vici/vici.h"

namespace latchkey::broker::vici {

inline Sa MakeSa(const std::string& source, const std::string& destination, uint32_t spi,
                 uint32_t reqid = 70000) {
  Sa sa;
  sa.source = *Address::Parse(source);
  sa.key = SaKey{*Address::Parse(destination), spi, SaProtocol::kEsp};
  sa.reqid = reqid;
  return sa;
}

struct ViciFixture {
  int64_t now = 1'000'000;
  FakeCharon charon;
  std::vector<std::string> log;
  std::unique_ptr<ViciKeyManager> keys;
  std::vector<KeyEvent> events;  // since Take()

  const Sa in = MakeSa("10.9.0.1", "10.9.0.2", 0x100);
  const Sa out = MakeSa("10.9.0.2", "10.9.0.1", 0x200);
  const Sa foreign = MakeSa("10.9.0.1", "10.9.0.2", 0x666);

  void Make() {
    ViciKeyManager::Options options;
    options.path = charon.path();
    options.now_ms = [this] { return now; };
    options.log = [this](const std::string& text) { log.push_back(text); };
    keys = std::make_unique<ViciKeyManager>(std::move(options));
  }
  // Lets both talk until neither has anything to say.
  void Spin() {
    for (int quiet = 0; quiet < 3;) {
      charon.Serve();
      // Twice as long as its timer can take to say that there are events.
      pollfd ready{keys->Fd(), POLLIN, 0};
      if (poll(&ready, 1, 2) == 0) {
        ++quiet;
        continue;
      }
      quiet = 0;
      keys->OnReadable();
      for (KeyEvent& event : keys->TakeEvents()) events.push_back(std::move(event));
    }
  }
  // Lets time pass, by the clock that timers are compared with.
  void Pass(int64_t milliseconds) {
    now += milliseconds;
    keys->OnReadable();
    Spin();
  }
  // Starts charon and the key manager, and lets them get to know each other.
  void Begin() {
    charon.Start();
    Make();
    Spin();
    events.clear();
  }
  std::vector<KeyEvent> Take() { return std::exchange(events, {}); }
  size_t Count(KeyEvent::Kind kind) const {
    return static_cast<size_t>(std::ranges::count(events, kind, &KeyEvent::kind));
  }
  // The one event of a kind; an empty one where there is none, or several.
  KeyEvent Only(KeyEvent::Kind kind) const {
    if (Count(kind) != 1) return {};
    return *std::ranges::find(events, kind, &KeyEvent::kind);
  }
  // The peer, or why there is none.
  std::string Who(const Sa& sa, bool inbound = true) {
    const Identified who = keys->Identify(sa, inbound);
    if (who.pending()) return "pending";
    return who.known() ? who.verified.identity.peer_id : wire::ReasonWord(who.why);
  }
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_FIXTURE_H_
