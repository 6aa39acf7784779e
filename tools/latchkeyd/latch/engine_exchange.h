// Two brokers whose kernels are joined by a wire, for tests that hand over one message at a time:
// what a key exchange does to the SAD of each end, what each kernel then tells its broker, and what
// each key manager knows. After every step Check() says what must not be; Save() and Restore() go
// back to an earlier moment, so that everything that may happen next can be tried.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_EXCHANGE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_EXCHANGE_H_

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {

// SAs that the key exchange puts into one end's SAD, or takes out.
struct WireMessage {
  bool add = false;
  std::vector<Sa> sas;
};

// One end: a broker, the messages and events that it has not seen yet, and what is true of the SAs.
class Side {
 public:
  Side(const std::string& us, const std::string& whom, Pin pin, policy::OnBreak on_break);

  // The next message reaches the kernel; the kernel's next event reaches the broker.
  void Apply();
  void Read();
  // The key manager names whoever is behind SAs of which it has not spoken yet, tells of its own
  // end, and comes back with or without what it knew.
  void Learn();
  void KeysLost();
  void KeysBack(bool knowing);
  // It finds the peer dead.
  void Die();

  // Somebody writes an entry into the SPD that denies everything, or takes it out again.
  void ChangeSpd();

  bool keys_up() const { return keys_up_; }
  bool Unnamed() const;
  const Entry* entry() const { return broker.engine->database().Find(latch); }

  // What is wrong, one a line; empty: nothing.
  std::string Check() const;
  // Ends everything and lets time pass. What is left behind, one a line. Nothing can follow.
  std::string Finish();
  // All that decides what happens next, with SPIs by rank; alone, by rank among this end's own.
  std::string Describe() const;
  void Describe(std::string& out, const std::map<uint32_t, int>& ranks) const;
  void CollectSpis(std::set<uint32_t>& spis) const;

  struct Saved {
    FakeKernel kernel;
    FakeKeyManager keys;
    FakeObserver observer;
    std::unique_ptr<Engine> engine;
    std::deque<WireMessage> wire;
    std::deque<KernelEvent> events;
    std::vector<Sa> intruder;
    std::map<uint32_t, Identified::Kind> said;
    bool keys_up = true;
  };
  Saved Save();
  void Restore(const Saved& saved);

  Broker broker;
  std::string peer;
  std::deque<WireMessage> wire;
  std::deque<KernelEvent> events;
  std::vector<Sa> intruder;               // in its SAD
  std::map<uint32_t, std::string> owner;  // the truth, by SPI
  int fd = -1;
  uint64_t latch = 0;

 private:
  void Tell();
  bool NothingInTheWay() const;
  void CheckEstablished(const Entry& entry, std::string& wrong) const;
  friend class Exchange;

  Identity identity_;  // as latched
  Protection protection_;
  std::map<uint32_t, Identified::Kind> said_;  // by the key manager, when it is up
  bool keys_up_ = true;
};

// Alice connects to Bob; both are latched under reqid 7.
class Exchange {
 public:
  Exchange(Pin pin, policy::OnBreak on_break, bool bob_first = false);

  // The next rekey, begun by Alice (or Bob, `bob_first`), then by the other, and so on: it goes
  // over the wire in order.
  void Rekey();
  // The IKE SA is gone: all SAs go.
  void Down();
  // Mallory has an SA with this end, for the other's address and under their reqid; and has it no
  // more.
  void Intrude(Side& side);
  static void Leave(Side& side);
  // Both ends let time pass.
  void Pass(int64_t milliseconds);

  std::string Check() const;
  std::string Describe() const;

  struct Saved {
    Side::Saved alice, bob;
    std::vector<Sa> pair;
    bool bobs_turn = false;
  };
  Saved Save() { return {alice.Save(), bob.Save(), pair_, bobs_turn_}; }
  void Restore(const Saved& saved, bool alices = true, bool bobs = true);

  bool paired() const { return !pair_.empty(); }

  Side alice, bob;

 private:
  std::vector<Sa> MakePair();

  std::vector<Sa> pair_;  // as agreed: Alice's outgoing one first
  bool bobs_turn_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_EXCHANGE_H_
