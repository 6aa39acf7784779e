// How a hook is written: under a private name, exported by its libc name through an asm label, so
// that no prototype of a header can get in the way.
#ifndef SHIM_HOOK_H_
#define SHIM_HOOK_H_

#define LATCHKEY_HOOK(name) __asm__(#name) __attribute__((visibility("default"), used))

#endif  // SHIM_HOOK_H_
