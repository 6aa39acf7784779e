// The way to the broker: a few connections, taken without a lock, checked before every use.
//
// A program may close, replace or inherit any descriptor it likes; a connection counts as ours only
// while its number still has the device and inode it was made with, and in the process that made
// it. Async-signal-safe, no allocation, errno untouched.
#ifndef SHIM_LINK_H_
#define SHIM_LINK_H_

#include <cstdint>

#include "shim/wait.h"
#include "shim/wire/codec.h"

namespace latchkey::shim {

// Where the broker is and which session is ours. Set once, by the constructor.
void SetBroker(const char* path);
void SetToken(const uint8_t* token);
bool HasToken();

// How long an answer may take, beside the patience with a broker that says nothing.
struct Limits {
  Signals signals = Signals::kGoOn;
  int64_t deadline = 0;  // by NowMs(); 0 = none
  bool may_wait = true;  // false: that the broker cannot decide yet ends it too
};

// Sends one request with up to one descriptor on a connection of the session and waits for its
// answer: 10 s, and 10 s more after each word that it is still to come (Verdict::kWait). 0, or the
// errno of the failure: EPROTO for an answer that is none, ETIMEDOUT when patience ran out, and by
// `limits` EINTR, ETIME, ECANCELED. Failed, the connection is closed, which withdraws the request.
// A broker that went away in between is tried once more.
int Ask(const void* request, uint32_t size, int descriptor, wire::Type answer,
        wire::Received& received, const Limits& limits = {});

// The same, with `count` descriptors, on a connection of its own that is not attached: for kOpen.
int AskApart(const void* request, uint32_t size, const int* descriptors, int count,
             wire::Type answer, wire::Received& received);

// Returns a serial for the next request.
uint32_t NextSerial();

// Attaches a connection if none is: the check-in. 0 or the errno.
int Attach();

// Makes as many connections as are ever kept, where the session is known: it may soon be too late.
void AttachAll();

// Has this process keep connections, and each child of fork() its own: from the constructor. Until
// then, and in children that libc does not know of (vfork, _Fork, clone), each request has one of
// its own.
void OwnLinks();

// Another patience than 10 s, for tests.
void SetPatience(int milliseconds);

// True when `fd` is a connection of ours in this process.
bool IsLink(int fd);
// Forgets the connection at `fd`: something else is about to take its place.
void ForgetLink(int fd);
// Writes the numbers of our connections, rising, into `fds`; returns how many there are.
int LinksInOrder(int* fds, int room);

}  // namespace latchkey::shim

#endif  // SHIM_LINK_H_
