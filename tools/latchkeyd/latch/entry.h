// A latch with what only the broker knows of it: whose it is, by which rule, and where its socket
// was last seen.
#ifndef TOOLS_LATCHKEYD_LATCH_ENTRY_H_
#define TOOLS_LATCHKEYD_LATCH_ENTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "policy/decide.h"
#include "policy/model/latch.h"
#include "policy/policy.h"
#include "shim/wire/messages.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

struct Answer {
  wire::Verdict verdict = wire::Verdict::kRefused;
  wire::Reason reason = wire::Reason::kBadRequest;
  uint64_t latch = 0;
  uint64_t ticket = 0;  // kWait: what Observer::OnAnswer() will name
  uint32_t device = 0;  // kLocal: by which its packets come back to this host
};

// Who asks: the authority of one request.
struct Client {
  uint64_t session = 0;
  std::shared_ptr<const policy::Policy> policy;
  policy::Requester requester;
  int32_t pid = 0;
  std::string program;
};

// One whom an unconnected UDP socket may have to do with: in its filter by admissions, in the SPD
// by entries of its own. The key is its address, with its port where the broker was asked about it.
struct HeldPeer {
  bool asked = false;      // by the program: it stays, SAs or not, unless it makes way for others
  bool clear = false;      // asked: it is let pass in clear
  bool same_host = false;  // clear, and within the host
  int64_t asked_at = 0;    // asked: NowMs() of the last time
  // With whom, and how protected, its datagrams began to move; nothing as long as none could.
  std::optional<Identity> identity;
  Protection protection;
  int64_t lost_at = 0;      // NowMs() when the last SA of that identity went; 0 = there is one
  int64_t doubt_since = 0;  // NowMs() when nobody could vouch for its SAs any more; 0 = fine
  int64_t again_at = 0;     // NowMs() when it is to be looked at without being asked; 0 = never
  wire::Reason why = wire::Reason::kNone;  // nothing moves, as told
  uint64_t latch = 0;  // its latch's id, from when it is bound to an identity; 0: none
  std::vector<Guard> guards;
  std::set<DatagramAdmission> admissions;
  std::vector<Guard> proofs;  // incoming entries, as long as a tag lets something in
};

// An unconnected UDP socket under the rules.
struct Held {
  std::vector<DatagramRegion> regions;  // by the rules; peers that were asked about add their own
  std::vector<Prefix> asked;  // whoever is in one, ports matter: nobody there is a peer unasked
  std::map<SocketAddress, HeldPeer> peers;
  std::vector<Family> families;  // those that it can speak
  bool shut = false;             // its own policy blocks IPv4: a device would keep the SPD out
  uint64_t aged_out = 0;         // peers that made way for others
  int64_t adopted_at = 0;  // NowMs() when it was taken over from a broker before us; 0 = it was not
};

struct Entry {
  Latch latch;  // with a `listener`: a peer's, and what it is made of is in that one's `held`
  uint64_t session = 0;
  std::shared_ptr<const policy::Policy> policy;
  policy::Requester requester;
  const policy::Rule* rule = nullptr;  // of *policy; null for listeners
  SocketHint hint;
  bool v6_socket = false;
  bool static_reqid = false;
  bool own_sa = false;        // its SAs are the flow's own, and others do not serve it
  std::optional<Flow> asked;  // the flow for which such SAs were asked for, if they were
  int64_t stalled_since = 0;  // NowMs() when its last SA went; 0 = it has one
  int64_t created = 0;        // NowMs()
  bool seen = false;          // its socket was once in the kernel's tables
  int64_t broken_since = 0;   // NowMs() when it broke
  bool unnamed = false;       // an SA serves it whose name is awaited: looked at again in time
  bool refused = false;       // kBroken: it was LARVAL, and to its program connect() failed
  bool silenced = false;      // kBroken: BLOCK set or socket aborted
  int64_t doubt_since = 0;    // NowMs() when nobody could vouch for its SAs any more; 0 = fine
  int64_t rekindled_at = 0;   // NowMs() when new SAs were asked for because of that last; 0 = not
  int64_t peer_dead_at = 0;   // NowMs() when the key manager said so; 0 = it did not
  int64_t moved_out_at = 0;   // NowMs() when its outgoing pin moved last
  bool admin_broken = false;  // kBroken by the administrator: until resumed
  uint64_t negotiation = 0;   // kLarval: the key manager's ticket; 0 = done
  int64_t deadline = 0;       // kLarval: NowMs() until when it waits
  uint32_t suspect_children = 0;  // listener: queued while no broker watched; refused at accept
  // Listener: peers that it cannot answer, and why, as told; those that lost SAs, by the addresses
  // of both ends; and SaTable::turn() when a peer had none left.
  std::map<Prefix, std::string> unserved;
  std::set<std::pair<Prefix, Prefix>> waning;
  std::map<Prefix, uint64_t> anew;
  // Listener: cookies of children that were queued at such a time, and of those that were while
  // nothing asked for an SA.
  std::set<uint64_t> elders;
  std::set<uint64_t> suspects;
  std::vector<Guard> guards;     // SPD entries held for it as long as it lives
  std::vector<Guard> sa_guards;  // listener: SPD entries held for each SA it may use

  // Listener with optional peers: the cookies of children that may have begun in clear before there
  // was an SA, or that this is not known of any.
  std::set<uint64_t> clear_children;
  bool blind = false;

  // UDP, connected: it was held before that (or, where a broker before us made it, may have been).
  bool was_held = false;
  std::optional<Held> held;  // a listener that is an unconnected UDP socket
  // Of its peers, the latches that the administrator broke: all that is written down of such ones.
  std::map<SocketAddress, Latch> broken_peers;
};

// Calls it with every SPD entry that is held for a latch (const or not).
template <typename AnEntry, typename Visit>
void EachGuard(AnEntry& entry, Visit visit) {
  for (auto& guard : entry.guards) visit(guard);
  for (auto& guard : entry.sa_guards) visit(guard);
  if (!entry.held) return;
  for (auto& [remote, peer] : entry.held->peers) {
    for (auto& guard : peer.guards) visit(guard);
    for (auto& guard : peer.proofs) visit(guard);
  }
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENTRY_H_
