// A UDP socket for the tests of the filter: bound anywhere, on loopback; what it sends can bear a
// mark, which the receiver's filter sees as it sees that of an SA.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_TEST_SOCKET_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_TEST_SOCKET_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

class TestUdp {
 public:
  explicit TestUdp(const std::string& address, bool v6_socket = false, uint16_t port = 0)
      : v6_(v6_socket || Read(address).family == Family::kV6),
        fd_(socket(v6_ ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const int yes = 1;
    // Addresses that nobody has given loopback.
    setsockopt(fd(), v6_ ? SOL_IPV6 : SOL_IP, v6_ ? IPV6_FREEBIND : IP_FREEBIND, &yes, sizeof(yes));
    sockaddr_storage name{};
    socklen_t length = ToSockaddr({Read(address), port}, v6_, 0, &name);
    Check(bind(fd(), reinterpret_cast<sockaddr*>(&name), length), "bind " + address);
    length = sizeof(name);
    Check(getsockname(fd(), reinterpret_cast<sockaddr*>(&name), &length), "getsockname");
    port_ = FromSockaddr(name, length).port;
  }

  int fd() const { return fd_.get(); }
  uint16_t port() const { return port_; }
  uint64_t cookie() const { return CookieOf(fd()).value(); }

  void Send(const TestUdp& to, const std::string& address, const std::string& text,
            uint32_t mark = 0) const {
    Check(setsockopt(fd(), SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), "SO_MARK");
    sockaddr_storage name{};
    const socklen_t length = ToSockaddr({Read(address), to.port()}, v6_, 0, &name);
    const ssize_t sent =
        sendto(fd(), text.data(), text.size(), 0, reinterpret_cast<const sockaddr*>(&name), length);
    Check(sent < 0 ? -1 : 0, "sendto " + address);
  }
  // What is there, "-" when nothing is.
  std::string Take() const {
    char text[64];
    const ssize_t size = recv(fd(), text, sizeof(text), MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return "-";
    Check(size < 0 ? -1 : 0, "recv");
    return {text, static_cast<size_t>(size)};
  }

 private:
  static Address Read(const std::string& text) { return Address::Parse(text).value(); }
  static void Check(int result, const std::string& what) {
    if (result != 0) throw std::runtime_error(what + ": " + std::strerror(errno));
  }

  bool v6_;
  UniqueFd fd_;
  uint16_t port_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_TEST_SOCKET_H_
