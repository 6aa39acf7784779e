// The sockets of the probes of what a broker holds.
#ifndef SHIM_TESTING_PROBE_HELD_TOOLS_H_
#define SHIM_TESTING_PROBE_HELD_TOOLS_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {

inline int Udp(int flags = 0) { return socket(AF_INET, SOCK_DGRAM | flags, 0); }

inline int Bind(int fd) {
  const sockaddr_in any = Loopback(0);
  return bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
}

inline int Bound(int flags = 0) {
  const int fd = Udp(flags);
  return Bind(fd) == 0 ? fd : -1;
}

inline long Send(int fd, uint16_t to = port, int flags = 0) {
  const sockaddr_in address = Loopback(to);
  return sendto(fd, "x", 1, flags, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_HELD_TOOLS_H_
