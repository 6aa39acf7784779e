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

// True when something is to be decided about TCP connections that come in, by a rule of either or
// the default. What the SPD asks of them it sees to itself.
bool RulesConnections(const Policy& policy, const SystemPolicy& file);

}  // namespace latchkey::policy

#endif  // POLICY_COMPILE_H_
