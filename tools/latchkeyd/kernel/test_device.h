// A network device whose far end is the test: what leaves by it can be read, packet by packet.
#ifndef TOOLS_LATCHKEYD_KERNEL_TEST_DEVICE_H_
#define TOOLS_LATCHKEYD_KERNEL_TEST_DEVICE_H_

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "policy/model/address.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// Of the calling thread's network namespace; has 10.77.0.1/24 and fd00:77::1/64.
class TestDevice {
 public:
  TestDevice() : fd_(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)) {
    ifreq request{};
    std::strncpy(request.ifr_name, "test0", sizeof(request.ifr_name) - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    Check(ioctl(fd_.get(), TUNSETIFF, &request), "make a device");
    const UniqueFd v4(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(0x0a4d0001);
    std::memcpy(&request.ifr_addr, &address, sizeof(address));
    Check(ioctl(v4.get(), SIOCSIFADDR, &request), "give it an address");
    address.sin_addr.s_addr = htonl(0xffffff00);
    std::memcpy(&request.ifr_netmask, &address, sizeof(address));
    Check(ioctl(v4.get(), SIOCSIFNETMASK, &request), "give it a network");
    request.ifr_flags = IFF_UP;
    Check(ioctl(v4.get(), SIOCSIFFLAGS, &request), "bring it up");
    Check(ioctl(v4.get(), SIOCGIFINDEX, &request), "number it");
    const UniqueFd v6(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    in6_ifreq second{};
    const Address own = Address::Parse("fd00:77::1").value();
    std::memcpy(&second.ifr6_addr, own.octets.data(), sizeof(second.ifr6_addr));
    second.ifr6_prefixlen = 64;
    second.ifr6_ifindex = request.ifr_ifindex;
    Check(ioctl(v6.get(), SIOCSIFADDR, &second), "give it an IPv6 address");
  }

  // How many packets with `text` have left since the last call.
  int Count(const std::string& text) const {
    int count = 0;
    char packet[65536];
    for (;;) {
      const ssize_t size = read(fd_.get(), packet, sizeof(packet));
      if (size < 0) return count;
      const std::string all(packet, static_cast<size_t>(size));
      if (all.find(text) != std::string::npos) ++count;
    }
  }

 private:
  static void Check(int result, const std::string& what) {
    if (result < 0) throw std::runtime_error(what + ": " + std::strerror(errno));
  }

  UniqueFd fd_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_TEST_DEVICE_H_
