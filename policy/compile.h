// Compiles a policy into the session's page: what the shim may settle alone.
#ifndef POLICY_COMPILE_H_
#define POLICY_COMPILE_H_

#include "policy/policy.h"
#include "policy/system_policy.h"
#include "shim/wire/page.h"

namespace latchkey::policy {

// Writes rules, `otherwise`, kPageHold and kPageDenyDatagrams into `page` (which nobody else writes
// meanwhile), generation odd while it does. Only outgoing TCP is compiled. A rule becomes bypass or
// discard entries only when that is the whole answer, whoever asks; protect rules, rules about
// local endpoints, what the system asks anything of and what does not fit into the table become
// "ask". Loopback destinations are bypassed where a protect rule or the system speaks of them
// (never latched, decide.h), but for those the system's file discards; all other addresses of this
// host are asked about. `system`: null where it is not known yet: then nothing is bypassed.
void CompileInto(const Policy& policy, const System* system, wire::Page& page);

// True when datagrams that nobody asked for are not all let in: a UDP socket is held from bind()
// on.
bool HoldsIncoming(const Policy& policy);

// True when a rule stands in the way of some of them, whatever the default does with the rest.
bool RulesIncoming(const Policy& policy);

}  // namespace latchkey::policy

#endif  // POLICY_COMPILE_H_
