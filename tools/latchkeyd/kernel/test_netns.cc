#include "tools/latchkeyd/kernel/test_netns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace latchkey::broker {
namespace {

void Check(bool good, const char* what) {
  if (!good) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

}  // namespace

TestNetns::TestNetns(bool loopback)
    : outside_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
  Check(static_cast<bool>(outside_), "open the network namespace");
  Check(unshare(CLONE_NEWNET) == 0, "unshare (these tests need root)");
  if (!loopback) return;
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_UP;
  Check(ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0, "bring up lo");
}

TestNetns::~TestNetns() {
  if (setns(outside_.get(), CLONE_NEWNET) != 0) std::terminate();
}

UniqueFd TcpSocket(int domain) {
  UniqueFd fd(socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Check(static_cast<bool>(fd), "socket");
  return fd;
}

uint16_t ListenOn(int fd, int domain, bool dual) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_in);
  if (domain == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_addr = dual ? in6addr_any : in6addr_loopback;
    length = sizeof(*v6);
  }
  Check(bind(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0, "bind");
  Check(listen(fd, 8) == 0, "listen");
  length = sizeof(storage);
  Check(getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) == 0, "getsockname");
  return ntohs(domain == AF_INET ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
                                 : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
}

int ConnectTo(int fd, int domain, const std::string& address, uint16_t port) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_in);
  if (domain == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    if (inet_pton(AF_INET, address.c_str(), &v4->sin_addr) != 1) return EINVAL;
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    if (inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) != 1) return EINVAL;
    length = sizeof(*v6);
  }
  return connect(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0 ? 0 : errno;
}

TcpPair MakeTcpPair(int domain) {
  TcpPair pair;
  pair.listener = TcpSocket(domain);
  const uint16_t port = ListenOn(pair.listener.get(), domain);
  pair.client = TcpSocket(domain);
  errno = ConnectTo(pair.client.get(), domain, domain == AF_INET ? "127.0.0.1" : "::1", port);
  Check(errno == 0, "connect");
  pair.server = UniqueFd(accept4(pair.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  Check(static_cast<bool>(pair.server), "accept");
  return pair;
}

}  // namespace latchkey::broker
