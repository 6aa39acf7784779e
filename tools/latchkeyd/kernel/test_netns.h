// For tests that talk to the kernel: a network namespace of their own, and TCP connections in it.
//
// They need root. Where that is not so they fail rather than pass untested.
#ifndef TOOLS_LATCHKEYD_KERNEL_TEST_NETNS_H_
#define TOOLS_LATCHKEYD_KERNEL_TEST_NETNS_H_

#include <optional>
#include <string>

#include "policy/model/address.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// While it lives, the calling thread is in a fresh network namespace, loopback up. Throws
// std::runtime_error when it cannot be had.
class TestNetns {
 public:
  explicit TestNetns(bool loopback = true);
  ~TestNetns();
  TestNetns(const TestNetns&) = delete;
  TestNetns& operator=(const TestNetns&) = delete;

 private:
  UniqueFd outside_;
};

struct TcpPair {
  UniqueFd listener;
  UniqueFd client;
  UniqueFd server;
};

// Returns a TCP socket of AF_INET or AF_INET6.
UniqueFd TcpSocket(int domain);
// Binds it to loopback (or, for AF_INET6 with `dual`, to ::) and listens. Returns the port.
uint16_t ListenOn(int fd, int domain, bool dual = false);
// Connects to an address and port; returns 0 or the errno.
int ConnectTo(int fd, int domain, const std::string& address, uint16_t port);
// Returns a connection over loopback.
TcpPair MakeTcpPair(int domain = 2);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_TEST_NETNS_H_
