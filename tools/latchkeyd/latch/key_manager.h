// What the latch database needs of a key manager: who is behind an SA, and SAs where there are
// none. `keymgr/` implements it; fake_key_manager.h stands in for it in tests. Nothing here waits.
#ifndef TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_
#define TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "policy/decide.h"
#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "policy/model/latch.h"
#include "policy/model/protection.h"
#include "shim/wire/reason.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

struct Verified {
  Identity identity;
  bool static_reqid = false;  // the reqid is bound to this one identity and never re-used
  Peering peering;            // where its IKE SA ends, with NATs; empty for manual keys
  // Which packets the SA is for, in its own direction, as the peers have agreed; empty: not known.
  // Known of tunnels only, whose SAs say nothing of it (see sa_table.h).
  std::vector<Selector> traffic = {};

  bool operator==(const Verified&) const = default;
};

// What a key manager says of one SA.
struct Identified {
  enum class Kind : uint8_t {
    kNobody,   // nobody, or nobody beyond doubt: such an SA is nobody's
    kKnown,    //
    kPending,  // it is being asked; a KeyEvent follows
  };
  Kind kind = Kind::kNobody;
  Verified verified;                  // kKnown; kPending: the ids if they are known already
  Reason why = Reason::kPeerUnknown;  // kNobody: peer-unknown, ambiguous-peer, or km-lost:
                                      // whoever knew cannot be asked, or has forgotten

  bool operator==(const Identified&) const = default;
  bool known() const { return kind == Kind::kKnown; }
  bool pending() const { return kind == Kind::kPending; }

  static Identified Known(Verified who) { return {Kind::kKnown, std::move(who), Reason::kNone}; }
  static Identified Nobody(Reason why = Reason::kPeerUnknown) { return {Kind::kNobody, {}, why}; }
  static Identified Pending() { return {Kind::kPending, {}, Reason::kNone}; }
  // Who it is, is known; how they proved it is being asked.
  static Identified Pending(std::string peer_id, std::string local_id) {
    Identified who = Pending();
    who.verified.identity = {std::move(peer_id), std::move(local_id), ""};
    return who;
  }

  // True when this is between others than `identity`, however they prove it in the end.
  bool OthersThan(const Identity& identity) const {
    const Identity& mine = verified.identity;
    return (known() || !mine.peer_id.empty()) &&
           (mine.peer_id != identity.peer_id || mine.local_id != identity.local_id);
  }
};

// A flow that needs an SA. `demand` holds pointers into a policy: they are used during the call
// only.
struct AcquireRequest {
  Flow flow;          // the local address may be any, its port 0; whole where demand.unique
  std::string child;  // the IKE child to initiate; empty: found by the flow
  policy::Demand demand;
};

struct KeyEvent {
  enum class Kind : uint8_t {
    kChanged,   // who is behind SAs may have changed: identify them again
    kAcquired,  // `ticket` is done: kNone, an SA was made (or is there); else why not
    kReturned,  // it can be asked, for the first time or again, and has told what it has
    kPeerDead,  // the peer does not answer any more (DPD): `peer`, at `remote`
    kKeys,      // the answer to AskKeys(): `own_key`, `peer_key`
  };
  Kind kind = Kind::kChanged;
  uint64_t ticket = 0;
  Reason reason = Reason::kNone;
  std::string detail;
  Identity peer;
  Address remote;
  std::string own_key = {};  // subjectPublicKeyInfo in DER; empty: not known beyond doubt
  std::string peer_key = {};
};

class KeyManager {
 public:
  virtual ~KeyManager() = default;

  // Says who is at the other end of `sa`; `inbound` tells which of its addresses is the peer's.
  virtual Identified Identify(const Sa& sa, bool inbound) = 0;

  // Begins a negotiation, or joins one that is under way for the same child and peer address, and
  // returns its ticket, never 0. An error where none can be begun: no-child, ambiguous-peer
  // (several children fit), km-lost, or no-sa where keys are manual.
  virtual Result<uint64_t> Acquire(const AcquireRequest& request) = 0;
  // The caller does not wait for it any more. Each Acquire() ends by one of these or by its event.
  virtual void Abandon(uint64_t ticket) = 0;

  // Begins to find the public keys with which both ends of an identity have proved themselves;
  // returns a ticket for one kKeys, or 0: there are none, or nobody can say.
  virtual uint64_t AskKeys(const Identity& identity) {
    (void)identity;
    return 0;
  }

  // The flow is over: SAs that were made for it alone go. Nothing happens where there are none.
  virtual void Release(const Flow& flow) = 0;

  // Takes what happened since the last call, oldest first.
  virtual std::vector<KeyEvent> TakeEvents() = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_
