// Programs that the policy lets start without the shim (drop_preload).
#ifndef SHIM_EXEMPT_H_
#define SHIM_EXEMPT_H_

#include "shim/wire/page.h"

namespace latchkey::shim {

// True when the policy lets any program drop the shim.
bool AnyExempt(const wire::Page& page);

// True when the list holds the file: the path itself, or what it is once all symbolic links are
// followed. `folder` and `path` as openat() has them; an empty path is the file open at `folder`.
// What cannot be found is not exempt. Async-signal-safe, errno untouched.
bool IsExempt(const wire::Page& page, int folder, const char* path);

// Writes the first executable file that execvp() finds for `name`, a name without a slash, in
// `search_path` (null: "/bin:/usr/bin") into `found`, always with a slash. False when there is
// none.
bool FindInPath(const char* name, const char* search_path, char* found, unsigned long room);

}  // namespace latchkey::shim

#endif  // SHIM_EXEMPT_H_
