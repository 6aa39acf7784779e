// Which descriptors are of UDP sockets whose datagrams the kernel holds to the policy for as long
// as they live (the broker said so and they bear the mark), so that what they send needs no look;
// and of which the broker has said that they need not be held.
//
// A hint, kept where sockets cannot have become others unseen. Wrong, it would let a datagram of a
// socket that nobody holds leave in clear; so it is taken
//  - only with the mark seen after it was noted, and by the process that the memory belongs to (not
//    by a child of vfork());
//  - never for a number that stdio has (fdopen), whose fclose() no hook sees, and never again in a
//    process where a thread has descriptors of its own (unshare, close_range);
// and forgotten, before and after, by close, close_range, closefrom, dup2, dup3, and once more when
// socket or accept give the number out, so that one noted in between by a thread that uses what
// another one closes does not stay. What is left are a program that closes a held socket by a
// system call of its own (an instruction, io_uring) and gets the number back in such a way or by
// dup, fcntl, SCM_RIGHTS, and threads without CLONE_FILES made by clone(). To have forgotten too
// much costs one system call with the next datagram. Numbers from kFdLimit on are never noted.
// Async-signal-safe, no lock, errno untouched.
#ifndef SHIM_HELD_H_
#define SHIM_HELD_H_

namespace latchkey::shim {

// Makes the hints this process's, and each child's of fork() its own: from the constructor. Until
// then, and in children that were made past libc, none is taken.
void OwnHints();
// True when they are this process's: not to be forgotten by a child of vfork().
bool AreOwnHints();

// Notes that `fd` is held. The caller then looks at its mark, and forgets it where there is none.
void NoteHeld(int fd);
bool IsHeld(int fd);
// Notes that the broker knows of the socket at `fd`, and does not hold it.
void NoteFree(int fd);
bool IsFree(int fd);

// Forgets both: the number may be another's.
void ForgetHeld(int fd);
void ForgetHeldRange(unsigned first, unsigned last);

// Takes no hint about `fd`, since stdio has it, until the number is given out anew.
void NeverHeld(int fd);
// Forgets all about `fd`, which the kernel has just given out.
void FreshHeld(int fd);
// Takes none any more, and forgets all: the same number may be several sockets'.
void StopHints();

}  // namespace latchkey::shim

#endif  // SHIM_HELD_H_
