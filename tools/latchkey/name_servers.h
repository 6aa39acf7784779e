// The C library's look-ups of names, behind the fence: its resolver's sockets are seen by no shim,
// so what it sends goes where the policy bypasses, and nowhere else.
#ifndef TOOLS_LATCHKEY_NAME_SERVERS_H_
#define TOOLS_LATCHKEY_NAME_SERVERS_H_

#include <string>
#include <vector>

#include "policy/model/address.h"
#include "policy/policy.h"
#include "policy/system_policy.h"

namespace latchkey::tool {

inline constexpr char kResolvConf[] = "/etc/resolv.conf";

// Returns the servers that a resolv.conf(5) names; of a line that names none that is an address,
// nothing. None of a file that cannot be read: what there is then is not known.
std::vector<Address> ReadNameServers(const std::string& name);

// Returns those of `servers` whose port 53 a program under the policy does not reach behind the
// fence. `system` alone: what the SPD asks is not looked at.
std::vector<Address> FencedOff(const std::vector<Address>& servers, const policy::Policy& policy,
                               const policy::SystemPolicy& system);

// Returns what to say of them, with the rule that lets them through; "" of none.
std::string NameServerHint(const std::vector<Address>& fenced_off);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_NAME_SERVERS_H_
