// What one look at the SAs between an unconnected UDP socket and a peer's address finds.
#ifndef TOOLS_LATCHKEYD_LATCH_PEER_LOOK_H_
#define TOOLS_LATCHKEYD_LATCH_PEER_LOOK_H_

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "policy/decide.h"
#include "policy/model/error.h"
#include "policy/model/latch.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

struct PeerLook {
  // By one of our addresses.
  struct Way {
    Flow flow;
    policy::Verdict verdict;
    std::vector<const KnownSa*> out;
    std::vector<const KnownSa*> in;
  };
  std::vector<Way> ways;

  // Who is behind its SAs: an unknown one as nothing.
  std::set<std::optional<Identity>> identities;
  bool pending = false;   // one's name is being asked for
  bool doubtful = false;  // nobody can vouch for one any more

  // What is made of it.
  Error why{"serve peer", "", Reason::kNone};  // nothing moves
  std::vector<Guard> guards;
  std::set<DatagramAdmission> admissions;
  std::set<Guard> proofs;  // of the tags in `admissions`
  // The first pair that serves it.
  const Way* way = nullptr;
  const KnownSa* out = nullptr;
  const KnownSa* in = nullptr;

  void Add(const KnownSa& known, bool late) {
    if (known.who.known()) {
      identities.insert(known.who.verified.identity);
    } else if (known.doubtful() && known.vouched) {
      identities.insert(known.vouched);
      doubtful = true;
    } else if (known.who.pending() && !late) {
      pending = true;
    } else {
      identities.insert(std::nullopt);
    }
  }
  // True when datagrams can move both ways.
  bool Moves() const { return !guards.empty() && !admissions.empty(); }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_PEER_LOOK_H_
