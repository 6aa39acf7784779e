// Listeners that the program was handed by its starter, which listened before it ran: the broker is
// to latch them from now on. Who came before that is refused at accept.
#ifndef SHIM_HANDED_H_
#define SHIM_HANDED_H_

namespace latchkey::shim {

// Asks about a listener one of whose clients was refused since nobody had latched it, so that the
// next is served. Those that come as sd_listen_fds(3) has it (LISTEN_FDS, LISTEN_PID) were asked
// about before main(); others (from over a Unix socket, or by other conventions) lose their first
// client so. Keeps errno.
void LatchListener(int fd);

}  // namespace latchkey::shim

#endif  // SHIM_HANDED_H_
