// Whether memory that a program points at can be read: a hook must not crash where the kernel would
// have answered EFAULT.
#ifndef SHIM_READABLE_H_
#define SHIM_READABLE_H_

#include <cstddef>

namespace latchkey::shim {

// True when all of [data, data+size) can be read now. On the main thread's stack, and on the page
// the caller's own frame is on, it is known without a system call.
bool IsReadable(const void* data, size_t size);

}  // namespace latchkey::shim

#endif  // SHIM_READABLE_H_
