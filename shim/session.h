// The session this process belongs to: found, or made, before the program's main() runs.
#ifndef SHIM_SESSION_H_
#define SHIM_SESSION_H_

#include "shim/wire/page.h"

namespace latchkey::shim {

// Returns the session's page, null while there is none: then nothing may be assumed.
const wire::Page* CurrentPage();

// Maps the page behind `fd` unless it is the one in force. 0 or the errno.
int MapPage(int fd);

// Returns the errno for what cannot be asked: EACCES when the policy was bad, EHOSTUNREACH when
// there is no broker.
int ClosedErrno();

// True when no flow of this session can ever be latched or refused: the policy has no rule.
bool NothingToDo();

}  // namespace latchkey::shim

#endif  // SHIM_SESSION_H_
