// The sockets that this process was handed by its starter and hands on: the kernel keeps the cgroup
// in which a socket was made, so the fence, which is around a cgroup, does not cover them.
//
// Limits: sees what is open now; what comes over a Unix socket that was handed is not known before.
#ifndef TOOLS_LATCHKEY_HANDED_SOCKETS_H_
#define TOOLS_LATCHKEY_HANDED_SOCKETS_H_

#include <expected>
#include <string>
#include <vector>

namespace latchkey::tool {

// Returns the descriptors of the inet sockets (AF_INET, AF_INET6) that stay open across exec, the
// lowest first; connected, listening or neither. The error is the errno with which
// /proc/self/fd cannot be read.
std::expected<std::vector<int>, int> HandedSockets();

// Says which they are and that the fence does not cover them; "" when there are none, and why that
// cannot be told where it cannot.
std::string OutsideOfFence();

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_HANDED_SOCKETS_H_
