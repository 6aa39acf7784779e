// Compiles a policy into the session's page: what the shim may settle alone.
#ifndef POLICY_COMPILE_H_
#define POLICY_COMPILE_H_

#include "policy/policy.h"
#include "shim/wire/page.h"

namespace latchkey::policy {

// Writes rules, `otherwise` and kPageDenyDatagrams into `page` (which nobody else writes
// meanwhile), generation odd while it does. Only outgoing TCP is compiled. A rule becomes bypass or
// discard entries only when that is the whole answer; protect rules, rules about local endpoints
// and what does not fit into the table become "ask". Loopback destinations are bypassed where a
// protect rule or the system default speaks of them (never latched, decide.h); all other addresses
// of this host are asked about.
void CompileInto(const Policy& policy, wire::Page& page);

}  // namespace latchkey::policy

#endif  // POLICY_COMPILE_H_
