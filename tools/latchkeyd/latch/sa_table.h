// The broker's mirror of the SAD, with who is behind each SA, now and in the past.
//
// The past matters to listeners: what lies in the receive queue of a child that was not accepted
// yet may have come under an SA that is gone by the time it is accepted. So an SA that went is
// remembered until no listener is older than its end.
//
// Tunnels of charon. An SA in transport mode, or made by hand, names in its selector what it may
// carry, and the kernel drops what came under it and is something else. charon's SAs in tunnel mode
// name nothing: to the kernel each of them may carry everything, and what keeps tunnel B from
// carrying packets with an inner address of tunnel A is only the policy that the packet meets, when
// that asks for A's reqid. (charon's own SPD entries do; so do a latch's pins, which are on the
// socket before its first packet.) So for such an SA the traffic selectors that its peers agreed on
// count in place of its selector, with two reservations:
//  - Whatever shares its reqid passes by the same policy. So where one of a reqid covers a flow,
//    all SAs of that reqid in this mode do, those of the past too: two identities under it are two
//    identities for the flow.
//  - It holds only where a policy by exact reqid is what the kernel asks. For what waits at a
//    listener the caller says whether one has stood there (`by_reqid`); if not, such an SA may have
//    carried everything.
// An SA without selector of which no traffic selectors are known (keys by hand, a key manager that
// has not said yet) covers everything, as before.
#ifndef TOOLS_LATCHKEYD_LATCH_SA_TABLE_H_
#define TOOLS_LATCHKEYD_LATCH_SA_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "policy/model/flow.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/latchkeyd/latch/sa.h"
#include "tools/latchkeyd/latch/voucher.h"

namespace latchkey::broker {

struct KnownSa {
  Sa sa;
  bool inbound = false;
  Identified who;
  uint64_t order = 0;  // greater = newer
  // Who was known to be behind it last; it counts while nobody can be asked, or has not answered.
  std::optional<Identity> vouched = {};
  bool inherited = false;     // it was there before this broker was, which never heard its name
  int64_t pending_since = 0;  // `now` of the Put() since which its name is awaited; 0: it is not
  // What it is for, as its key manager said last (key_manager.h); empty: not known.
  std::vector<Selector> traffic = {};

  // A key manager that does not know what was there before us may have forgotten it: of those that
  // came later its word is that they are nobody's.
  bool orphan() const {
    return inherited && who.kind == Identified::Kind::kNobody && who.why == Reason::kPeerUnknown;
  }
  // True while who it was known to be can be neither confirmed nor denied.
  bool doubtful() const {
    return !who.known() && (who.why == Reason::kKmLost || orphan() || (who.pending() && vouched));
  }
  // Who stands behind it as far as we know, for the broker after us; nothing where nobody does.
  // What an administrator wrote down he can be asked for again at any time.
  std::optional<Identity> Vouching() const;
  // True for one that the kernel holds to its traffic by policies of its reqid alone.
  bool by_reqid() const {
    return sa.protection.mode == Mode::kTunnel && sa.selector.family == Family::kNone &&
           !traffic.empty();
  }
  // What it may carry: its traffic where the SA itself names nothing.
  std::vector<Selector> selectors() const {
    return by_reqid() ? traffic : std::vector{sa.selector};
  }
  const Address& local() const { return inbound ? sa.key.destination : sa.source; }
  const Address& remote() const { return inbound ? sa.source : sa.key.destination; }
};

class SaTable {
 public:
  // What is put in until EndInheriting() was there before us. Where it is in every respect the SA
  // of a voucher, that one vouches for it.
  void BeginInheriting(const std::vector<Voucher>& vouchers);
  void EndInheriting();

  // Puts an SA in, or replaces what was known of it; what it was before, if it differs in identity,
  // counts as past. Where a tunnel ends, the SA itself says. `now` in milliseconds.
  void Put(const Sa& sa, bool inbound, Identified who, int64_t now);
  // With `unused`, the kernel says that no packet was ever taken in under it: an SA that never had
  // a name then has no past.
  void Erase(const SaKey& key, int64_t now, bool unused = false);

  // The SAs that can carry packets of the flow in one direction, newest first. One of a single
  // flow's own is another's as long as the ports of this one are not known. With a reqid, the
  // tunnels of that count too, whatever they are for: a policy of the flow's asks for it.
  std::vector<const KnownSa*> Carrying(const Flow& flow, bool inbound, uint32_t reqid = 0) const;

  // Our addresses to which there are incoming SAs in transport mode from `remote`.
  std::set<Address> LocalsOf(const Address& remote) const;

  // The ports of `remote` to whose flows with a local port there are such SAs of their own.
  std::set<uint16_t> FlowPortsOf(const Address& remote, uint8_t protocol,
                                 uint16_t local_port) const;

  // Every identity that stood behind an SA able to carry the flow (inbound) at any time since
  // `since`, an unknown one as nothing. `by_reqid`: policies of exact reqids have stood since then.
  // With a `turn`, what had ended by then is left out.
  std::set<std::optional<Identity>> IdentitiesSince(const Flow& flow, int64_t since, bool by_reqid,
                                                    uint64_t turn = 0) const;
  // Grows with each end of an SA: a moment between two of them.
  uint64_t turn() const { return turn_; }

  // Forgets what ended before `time`.
  void ForgetBefore(int64_t time);

  const std::map<SaKey, KnownSa>& all() const { return sas_; }
  const KnownSa* Find(const SaKey& key) const;

 private:
  struct Past {
    KnownSa known;
    int64_t end = 0;
    uint64_t turn = 0;
  };

  // A transport mode SA's source and destination; no addresses for others, which carry any.
  using Ends = std::pair<Address, Address>;
  static Ends EndsOf(const Sa& sa);
  static Ends EndsOf(const Flow& flow, bool inbound);
  void Remember(const KnownSa& known, int64_t now);

  std::map<SaKey, KnownSa> sas_;
  std::map<Ends, std::vector<SaKey>> by_ends_;
  std::map<Ends, std::vector<Past>> past_;  // incoming ones
  uint64_t next_order_ = 1;
  std::map<SaKey, Voucher> vouchers_;  // while inheriting_
  bool inheriting_ = false;
  uint64_t turn_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_SA_TABLE_H_
