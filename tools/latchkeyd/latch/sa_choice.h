// The SAs of a flow: those chosen for one that begins, and what there are for one that has a latch.
#ifndef TOOLS_LATCHKEYD_LATCH_SA_CHOICE_H_
#define TOOLS_LATCHKEYD_LATCH_SA_CHOICE_H_

#include <cstdint>

#include "policy/model/latch.h"
#include "policy/model/protection.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

struct SaChoice {
  Verified verified;
  Protection protection;
  Offload offload = Offload::kNone;
  uint32_t reqid = 0;
  uint32_t spi_in = 0;
  uint32_t spi_out = 0;
  Pin pin = Pin::kReqid;
  bool own = false;  // they are of the flow's own
};

// What the SAs that can carry a latch's flow say of it.
struct SaStanding {
  bool conflict = false;
  bool pending = false;          // the key manager is being asked about one
  bool unnamed = false;          // and the socket's policy lets it in
  bool lost = false;             // nobody can vouch any more for one that serves it
  bool forgotten = false;        // and nobody is being asked about it
  bool orphaned = false;         // nobody can, and nobody wrote down that anybody could
  bool strange = false;          // nobody ever did, and the socket's policy lets it in
  const KnownSa* out = nullptr;  // the pair that fits best
  const KnownSa* in = nullptr;
  bool overlap = false;     // an older outgoing one is still there
  bool pinned_out = false;  // the ones it is pinned to are
  bool pinned_in = false;
  bool whole() const { return out != nullptr && in != nullptr; }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_SA_CHOICE_H_
