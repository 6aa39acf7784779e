// The broker's own socket: made, or handed over by the service manager.
#ifndef TOOLS_LATCHKEYD_SERVER_LISTENER_H_
#define TOOLS_LATCHKEYD_SERVER_LISTENER_H_

#include <string>

#include "policy/model/error.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// Takes the socket of LISTEN_FDS if one was handed over, else makes one at `path` (mode 0666; one
// that nobody listens on any more is replaced, anything else there is an error). Non-blocking,
// SOCK_SEQPACKET.
Result<UniqueFd> OpenListener(const std::string& path, bool* handed_over);

// Accepts one connection, with SO_PASSCRED set; empty, and errno says why, when there is none.
UniqueFd AcceptConnection(int listener);

// Tells the service manager (NOTIFY_SOCKET), if there is one.
void Notify(const std::string& state);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_LISTENER_H_
