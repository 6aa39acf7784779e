// What the tests of the privilege table share.
#ifndef POLICY_PRIVILEGE_FIXTURE_H_
#define POLICY_PRIVILEGE_FIXTURE_H_

#include "policy/decide.h"

namespace latchkey::policy {

inline SocketAddress S(const char* text, uint16_t port) {
  return {Address::Parse(text).value(), port};
}

inline const Flow kOut{Direction::kOut, kProtocolTcp, S("10.9.0.2", 0), S("10.9.0.1", 80)};
inline const Flow kIn{Direction::kIn, kProtocolTcp, S("10.9.0.2", 80), S("10.9.0.1", 40'000)};
// Bit 0: bypass, bit 1: weaken, bit 2: override-discard.
inline Grants GrantsOf(unsigned bits) {
  Grants grants;
  if ((bits & 1) != 0) grants.Add(Grant::kBypass);
  if ((bits & 2) != 0) grants.Add(Grant::kWeaken);
  if ((bits & 4) != 0) grants.Add(Grant::kOverrideDiscard);
  return grants;
}

}  // namespace latchkey::policy

#endif  // POLICY_PRIVILEGE_FIXTURE_H_
