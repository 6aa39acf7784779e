// The SPD entries that are ours: counted by who needs them, put back when something takes them
// away, gone when nobody needs them. With a tunnel's outgoing entry comes a ban of fragments the
// other way, which stands before the entry does and falls after it.
#ifndef TOOLS_LATCHKEYD_LATCH_GUARD_SET_H_
#define TOOLS_LATCHKEYD_LATCH_GUARD_SET_H_

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/observer.h"

namespace latchkey::broker {

class GuardSet {
 public:
  GuardSet(KernelPort& kernel, Observer& observer) : kernel_(kernel), observer_(observer) {}

  // Takes over a guard that a broker before us may have left in the kernel: it stays until Sweep().
  void Inherit(const Guard& guard);

  // Adds a use; the first one puts the entry into the SPD. With `shared`, an equal entry that is
  // there already (another broker's) serves as well.
  Result<void> Hold(const Guard& guard, bool shared = false);

  // Ends a use; the last one takes the entry away. With `keep`, the kernel's entry stays although
  // it is ours no more (another broker lives on it).
  void Drop(const Guard& guard, bool keep = false);

  // Changes the reqid of a held guard, for everybody who holds it. False, and nothing changed,
  // where the kernel refuses or both are held.
  bool Renew(const Guard& from, const Guard& to);

  // Has the kernel try again what it keeps back under entries that ask for an SA and stand on the
  // way to `remote`: it does when an entry is put in place once more (xfrm_policy_requeue).
  void LetGo(const SocketAddress& remote);

  // Puts the outgoing guards of this selector behind all others of their priority: of those, the
  // kernel takes the one that was there first.
  void MoveBack(const Selector& selector);

  // Takes away what was inherited and nobody holds.
  void Sweep();

  // Puts back every held guard that `spd` lacks, and returns them.
  std::set<Guard> Reassert(const std::vector<SpdEntry>& spd);

  // Puts back what bans the fragments of tunnels, if somebody took it away.
  void KeepBans();

  // True while somebody holds it, or it was inherited.
  bool Has(const Guard& guard) const { return uses_.contains(guard); }

  // Returns the one of ours that the kernel takes for the same entry as `guard`.
  std::optional<Guard> InPlaceOf(const Guard& guard) const;

  // True when `entry` is one of ours.
  bool Owns(const SpdEntry& entry) const;

  size_t size() const { return uses_.size(); }

 private:
  struct Use {
    int count = 0;
    bool present = false;  // in the kernel, by us or inherited
    bool shared = false;
  };

  Result<void> Add(const Guard& guard, Use& use);
  // Makes the bans those of the guards in uses_.
  Result<void> UpdateBans();
  void LiftBans(const Guard& gone);

  KernelPort& kernel_;
  Observer& observer_;
  std::map<Guard, Use> uses_;
  std::optional<std::vector<FragmentBan>> bans_ = std::vector<FragmentBan>{};  // none: not known
};

// True when `entry` is what the kernel shows of `guard`.
bool Shows(const SpdEntry& entry, const Guard& guard);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_GUARD_SET_H_
