// The broker's mirror of the SAD, with who is behind each SA, now and in the past.
//
// The past matters to listeners: what lies in the receive queue of a child that was not accepted
// yet may have come under an SA that is gone by the time it is accepted. So an SA that went is
// remembered until no listener is older than its end.
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
  // Erases every SA that is not in `keys`: after a dump.
  void KeepOnly(const std::set<SaKey>& keys, int64_t now);

  // The SAs that can carry packets of the flow in one direction, newest first. One of a single
  // flow's own is another's as long as the ports of this one are not known.
  std::vector<const KnownSa*> Carrying(const Flow& flow, bool inbound) const;

  // Every identity that stood behind an SA able to carry the flow (inbound) at any time since
  // `since`, an unknown one as nothing.
  std::set<std::optional<Identity>> IdentitiesSince(const Flow& flow, int64_t since) const;

  // Forgets what ended before `time`.
  void ForgetBefore(int64_t time);

  const std::map<SaKey, KnownSa>& all() const { return sas_; }
  const KnownSa* Find(const SaKey& key) const;

 private:
  struct Past {
    KnownSa known;
    int64_t end = 0;
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
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_SA_TABLE_H_
