#include "tools/latchkeyd/kernel/fragment_ban.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "tools/latchkeyd/kernel/fragment_rules.h"

namespace latchkey::broker {
namespace {

constexpr int kAnswerSeconds = 5;

// What the kernel lacks shows as one of these.
bool Lacking(int number) {
  return number == EOPNOTSUPP || number == EAFNOSUPPORT || number == ENOENT ||
         number == EPROTONOSUPPORT || number == EINVAL;
}

std::unexpected<Error> Failed(int number) {
  return Fail(Lacking(number) ? Reason::kUnsupported : Reason::kKernelRefused,
              "ban fragments in clear of a tunnel by nf_tables", std::strerror(number));
}

void Drain(int fd) {
  char buffer[8192];
  while (recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0) {
  }
}

// Sends and reads until `visit` has had enough of the answers.
template <typename Visit>
Result<void> Exchange(int fd, std::span<const uint8_t> request, Visit visit) {
  Drain(fd);
  if (send(fd, request.data(), request.size(), 0) < 0) return Failed(errno);
  alignas(nlmsghdr) char buffer[16'384];
  while (true) {
    const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Failed(got < 0 ? errno : EIO);
    const std::span<const char> octets(buffer, static_cast<size_t>(got));
    for (size_t at = 0; at + sizeof(nlmsghdr) <= octets.size();) {
      nlmsghdr header;
      std::memcpy(&header, octets.data() + at, sizeof(header));
      if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > octets.size() - at) break;
      const std::span<const char> body =
          octets.subspan(at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
      if (header.nlmsg_type == NLMSG_ERROR) {
        int code = 0;
        if (body.size() >= sizeof(code)) std::memcpy(&code, body.data(), sizeof(code));
        if (code != 0) return Failed(-code);
      }
      if (visit(header, body)) return {};
      at += NLMSG_ALIGN(header.nlmsg_len);
    }
  }
}

// How many rules a chain has, of the kernel's answer about it.
uint32_t RulesIn(std::span<const char> body) {
  uint32_t used = 0;
  for (size_t at = sizeof(nfgenmsg); at + sizeof(nlattr) <= body.size();) {
    nlattr attribute;
    std::memcpy(&attribute, body.data() + at, sizeof(attribute));
    if (attribute.nla_len < sizeof(attribute)) break;
    if ((attribute.nla_type & NLA_TYPE_MASK) == NFTA_CHAIN_USE &&
        at + NLA_HDRLEN + sizeof(used) <= body.size()) {
      std::memcpy(&used, body.data() + at + NLA_HDRLEN, sizeof(used));
    }
    at += NLA_ALIGN(attribute.nla_len);
  }
  return ntohl(used);
}

}  // namespace

Result<int> FragmentBans::Socket() {
  if (socket_) return socket_.get();
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!fd) return Failed(errno);
  const timeval patience{kAnswerSeconds, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const int size = 1 << 20;  // octets: a batch is one message, and each request may be answered
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
  const int yes = 1;
  setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof(yes));
  socket_ = std::move(fd);
  return socket_.get();
}

Result<void> FragmentBans::Set(const std::vector<FragmentBan>& bans) {
  const Result<int> fd = Socket();
  if (!fd) return std::unexpected(fd.error());
  const FragmentBatch batch = BuildFragmentBans(table_, owned_, bans);
  const Result<void> done =
      Exchange(*fd, batch.octets, [&batch](const nlmsghdr& header, std::span<const char>) {
        return header.nlmsg_type == NLMSG_ERROR && header.nlmsg_seq == batch.acknowledged;
      });
  if (!done) return done;
  rules_.clear();
  for (const FragmentBan& ban : bans) {
    rules_[FamilyOf(ban)] = CountFragmentRules(FamilyOf(ban), bans);
  }
  return {};
}

bool FragmentBans::Stand() {
  const Result<int> fd = Socket();
  if (!fd) return false;
  for (const auto& [family, count] : rules_) {
    size_t found = 0;
    const Result<void> done =
        Exchange(*fd, BuildFragmentChainQuery(table_, family),
                 [&found](const nlmsghdr& answer, std::span<const char> body) {
                   constexpr uint16_t kChain = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN;
                   if (answer.nlmsg_type == kChain) found = RulesIn(body);
                   return answer.nlmsg_type == kChain;
                 });
    if (!done || found != count) return false;
  }
  return true;
}

}  // namespace latchkey::broker
