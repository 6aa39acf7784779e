// What charon is known to have: its IKE_SAs and their children, kept up to date by lists and
// events, and who is behind an SA by them. No I/O, no clock.
//
// What an event takes away stays until a list that was asked for afterwards does not have it: an SA
// is in the kernel a little longer than charon speaks of it, and who is behind it does not change
// with that. So does everything while charon is away; what it then has forgotten is `km-lost`.
//
// static_reqid. VICI does not say whether a child's reqid is configured. It is taken to be where
// all of this holds: it is at least 65536 (charon allots from 1 up, and again those that became
// free); everything seen under it since charon was (re)connected has one and the same peer and
// local identity; the connection is configured with exactly one exact remote id, and the peer has
// it. What remains: another connection with the same number is noticed when it comes up, not
// before.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_MIRROR_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_MIRROR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tools/latchkeyd/keymgr/vici/conns.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"
#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker::vici {

class Mirror {
 public:
  // Who is behind `sa`: SPI, protocol, reqid and both addresses must be those of a child. kPending,
  // with the ids, while the way its peer proved itself is not known (SetConns() settles that);
  // ambiguous-peer where children of different peers fit; km-lost where charon came back without
  // it. Nothing: no child is like it.
  std::optional<Identified> Look(const Sa& sa, bool inbound) const;

  // charon is connected, and may be another one: from now on unique ids are its, and reqids have no
  // past. What was known stays until the next list, which shall come after SetConns().
  void Reconnected();

  // A list of all SAs: Begin when it is asked for, one Listed for each IKE_SA, then End, which
  // forgets what was neither listed nor heard of since Begin. True when what Look() says may have
  // changed.
  void BeginList();
  void Listed(const IkeSa& ike);
  bool EndList();
  // A list took it away, though its charon is the same: the kernel may still have it for a moment.
  bool Departed(const Sa& sa) const { return departed_.contains(KeyOf(sa)); }

  // Events. Each may change what Look() says.
  void Heard(const IkeSa& ike);  // up, or changed; its children, if any, are new or changed
  void Rekeyed(const ChildRekey& rekey);
  void Rekeyed(const IkeRekey& rekey);
  void Moved(const IkeUpdate& update);

  // The configurations, as listed just now. Settles how the peers of IKE_SAs new since the last
  // one proved who they are; true when there were any.
  bool SetConns(std::vector<ConnConfig> conns);
  // The configurations that IKE_SAs of it go by.
  std::set<std::string> IkeNames() const;
  const std::vector<ConnConfig>& conns() const { return conns_; }
  // True when there are IKE_SAs that wait for SetConns().
  bool unsettled() const;

  // The identity of an IKE_SA's peer; nothing for one that is not known.
  std::optional<Identity> PeerOf(uint32_t ike_id) const;
  // True when there are IKE_SAs between the two of an identity and, by the configurations that they
  // go by, both ends prove themselves by public keys alone.
  bool ProvesByKey(const Identity& identity) const;
  // Where the IKE_SA ends, and the one address at which all IKE_SAs of a configuration end.
  std::optional<SocketAddress> RemoteOf(uint32_t ike_id) const;
  std::optional<Address> SolePeerOf(const std::string& ike) const;

  size_t size() const { return children_.size(); }

 private:
  struct Ike {
    IkeSa sa;  // without children
    std::optional<std::string> auth;
    std::vector<std::pair<Address, Address>> former;  // local and remote, until the next list
    uint64_t touched = 0;
  };
  struct Child {
    ChildSa sa;
    std::vector<Selector> traffic;  // going out
    uint64_t ike = 0;
    uint64_t touched = 0;
  };
  struct ReqidUse {
    Identity first;  // without how it was proved
    bool several = false;
  };
  using Key = std::tuple<SaProtocol, uint32_t, uint32_t, Address, Address>;  // SPI, reqid, from, to

  static Key KeyOf(const Sa& sa);
  // An id that no other charon has had.
  uint64_t Id(uint32_t id) const { return uint64_t{epoch_} << 32 | id; }
  // Keys of both SAs of a child.
  std::vector<Key> KeysOf(const Child& child) const;
  Ike& Put(const IkeSa& sa);
  void Put(const ChildSa& sa, uint32_t ike_id);
  Identified Who(const Ike& ike, const Child& child, bool inbound) const;
  void Index() const;

  std::map<uint64_t, Ike> ikes_;
  std::map<uint64_t, Child> children_;
  std::vector<ConnConfig> conns_;
  std::map<uint32_t, ReqidUse> reqids_;
  std::set<Key> lost_;
  std::set<Key> departed_;
  uint32_t epoch_ = 0;
  bool returning_ = false;  // until the first list after Reconnected() is over
  uint64_t now_ = 1;
  uint64_t list_ = 0;
  bool changed_ = false;                                        // by the list
  mutable std::unordered_multimap<uint32_t, uint64_t> by_spi_;  // to ids of children
  mutable bool indexed_ = true;
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_MIRROR_H_
