// Builds what XFRM is asked: netlink requests for SPD entries, and the values of the socket options
// IP_XFRM_POLICY and IPV6_XFRM_POLICY (include/uapi/linux/xfrm.h). Pure functions.
#ifndef TOOLS_LATCHKEYD_KERNEL_XFRM_BUILD_H_
#define TOOLS_LATCHKEYD_KERNEL_XFRM_BUILD_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

using Octets = std::vector<uint8_t>;

// Returns the NEWPOLICY request that adds `guard`. NEWPOLICY, unlike UPDPOLICY, is refused by the
// kernel (EEXIST) where an entry of equal selector and mark stands. kBadRequest when the guard's
// selector has no family, or an outgoing ESP guard has no reqid (a template with 0 finds no SA), or
// none of the tunnel's ends.
Result<Octets> BuildAddGuard(const Guard& guard);

// Returns the DELPOLICY request for it: by direction, selector and mark, all exact.
Result<Octets> BuildDeleteGuard(const Guard& guard);

// Returns the UPDPOLICY request that turns `from`, which is there, into `to`: equal but for the
// reqid (kBadRequest otherwise). What the kernel holds back for the old entry leaves by the new one
// (xfrm_policy_requeue in net/xfrm/xfrm_policy.c).
Result<Octets> BuildRenewGuard(const Guard& from, const Guard& to);

// Returns the ALLOCSPI request for the SA that is being negotiated from `local` to `remote` under
// `reqid`, in transport mode or tunnel mode; the kernel answers with it, now with an SPI. And the
// DELSA request for an SA. What a marked entry asked for bears its mark, and is found by it alone.
Octets BuildAllocSpi(const Address& local, const Address& remote, SaProtocol protocol, Mode mode,
                     uint32_t reqid, uint32_t mark);
Octets BuildDeleteSa(const SaKey& key, uint32_t mark);

// Returns a request without a body but `body_size` zeros (GETSA, GETPOLICY, GETDEFAULT).
Octets BuildRequest(uint16_t type, size_t body_size = 0);

// The values to set, IN first. Nothing for a direction that is not touched; `clear` means to take
// both away (an empty value) instead.
struct SocketPolicyValues {
  std::optional<Octets> in;
  std::optional<Octets> out;
  bool clear = false;
};

// Returns what SetPolicy() sets. Each value is exactly one xfrm_userpolicy_info and its template:
// the kernel ignores a cut-off template and then takes the policy for a bypass (KERNEL.md 1.2).
// kBadRequest for a family of none, a pinned policy without a reqid, or one of a tunnel without its
// ends; kUnsupported for a mode other than transport and tunnel.
Result<SocketPolicyValues> BuildSocketPolicy(const SocketPolicy& policy);

// Returns the value that lets one socket of our own past the SPD in one direction.
Octets BuildSocketBypass(Family family, bool out);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_XFRM_BUILD_H_
