// Copies to where a program points, as the kernel would: a bad pointer is EFAULT, not a crash.
// Async-signal-safe, errno untouched.
#ifndef SHIM_GIVE_H_
#define SHIM_GIVE_H_

#include <cstddef>

namespace latchkey::shim {

// False where `to` points at nothing that can be written; a part may have been written then. Where
// a sandbox denies the system call, it is only looked whether `to` can be read.
bool Give(void* to, const void* from, size_t size);

}  // namespace latchkey::shim

#endif  // SHIM_GIVE_H_
