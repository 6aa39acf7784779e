#include "tests/bench/bench_kernel.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tools/latchkeyd/kernel/xfrm_build.h"

namespace latchkey::broker {

BenchKernel::BenchKernel(std::unique_ptr<RealKernel> real, Address local, Address remote)
    : real_(std::move(real)) {
  AddPair(local, remote);
}

std::vector<KernelEvent> BenchKernel::AddPair(const Address& local, const Address& remote) {
  std::vector<KernelEvent> events;
  for (const auto& [from, to] : {std::pair{local, remote}, std::pair{remote, local}}) {
    Sa sa;
    sa.key = {to, next_spi_++, SaProtocol::kEsp};
    sa.source = from;
    sa.reqid = 7;
    sa.protection = {SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
    sad_.push_back(sa);
    events.push_back({KernelEvent::Kind::kSaAdded, sa});
  }
  return events;
}

Result<void> BenchKernel::SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) {
  if (policy.kind != SocketPolicy::Kind::kProtect) return real_->SetPolicy(fd, facts, policy);
  const int level = facts.v6_socket ? SOL_IPV6 : SOL_IP;
  const int option = facts.v6_socket ? IPV6_XFRM_POLICY : IP_XFRM_POLICY;
  for (const bool out : {false, true}) {
    const Octets value = BuildSocketBypass(policy.family, out);
    if (setsockopt(fd, level, option, value.data(), static_cast<socklen_t>(value.size())) != 0) {
      return Fail(Reason::kKernelRefused, "setsockopt XFRM_POLICY", std::strerror(errno));
    }
  }
  return {};
}

}  // namespace latchkey::broker
