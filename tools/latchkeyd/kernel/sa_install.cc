#include "tools/latchkeyd/kernel/sa_install.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sodium.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"

namespace latchkey::broker {
namespace {

constexpr uint8_t kReplayWindow = 32;     // packets; the largest of the plain bitmap
constexpr size_t kLargestRequest = 1024;  // octets; two algorithms and their keys fit

struct Direction {
  Address source;
  Address destination;
  SaKeys keys;
};

struct Pair {
  SaSuite suite;
  Direction in;
  Direction out;
};

void Append(std::vector<uint8_t>* out, const void* data, size_t size) {
  const auto* octets = static_cast<const uint8_t*>(data);
  out->insert(out->end(), octets, octets + size);
}

// An attribute of a head and the key behind it.
template <typename Head>
void AppendAlgorithm(std::vector<uint8_t>* out, uint16_t type, const Head& head,
                     std::span<const uint8_t> key) {
  nlattr attribute{};
  attribute.nla_type = type;
  attribute.nla_len = static_cast<uint16_t>(sizeof(attribute) + sizeof(head) + key.size());
  Append(out, &attribute, sizeof(attribute));
  Append(out, &head, sizeof(head));
  Append(out, key.data(), key.size());
  out->resize(NLMSG_ALIGN(out->size()));
}

template <typename Head>
Head MakeHead(const policy::Suite& suite, size_t key_octets) {
  Head head{};
  suite.kernel.copy(head.alg_name, sizeof(head.alg_name) - 1);
  head.alg_key_len = static_cast<unsigned>(key_octets * 8);
  return head;
}

void SetLength(std::vector<uint8_t>* message) {
  const auto length = static_cast<uint32_t>(message->size());
  std::memcpy(message->data(), &length, sizeof(length));
}

std::vector<uint8_t> BuildDeleteSa(const Direction& direction) {
  nlmsghdr header{};
  header.nlmsg_type = XFRM_MSG_DELSA;
  xfrm_usersa_id id{};
  id.daddr = ToXfrm(direction.destination);
  id.spi = htonl(direction.keys.spi);
  id.family = ToAf(direction.destination.family);
  id.proto = IPPROTO_ESP;
  std::vector<uint8_t> message;
  Append(&message, &header, sizeof(header));
  Append(&message, &id, sizeof(id));
  SetLength(&message);
  return message;
}

Result<Pair> DerivePair(std::span<const uint8_t> secret, const ManualSa& sa) {
  if (sa.reqid == 0) return Fail(Reason::kBadRequest, "derive SA", "a reqid of 0 pins nothing");
  Result<SaSuite> suite = ParseSaSuite(sa.suite);
  if (!suite) return std::unexpected(suite.error());
  Result<SaKeys> in = DeriveSa(secret, sa.remote, sa.local, sa.reqid, *suite);
  if (!in) return std::unexpected(in.error());
  Result<SaKeys> out = DeriveSa(secret, sa.local, sa.remote, sa.reqid, *suite);
  if (!out) return std::unexpected(out.error());
  return Pair{
      *suite, {sa.remote, sa.local, std::move(*in)}, {sa.local, sa.remote, std::move(*out)}};
}

Result<void> Install(NetlinkSocket& socket, const Direction& direction, uint32_t reqid,
                     const SaSuite& suite) {
  std::vector<uint8_t> message =
      BuildNewSa(direction.source, direction.destination, reqid, suite, direction.keys);
  const auto done = socket.Request(message);
  sodium_memzero(message.data(), message.size());
  if (done) return {};
  const std::string step = "install SA to " + direction.destination.ToString();
  if (done.error().number == EEXIST) {
    return Fail(Reason::kConflictSa, step, "one of this SPI is there already");
  }
  return Fail(Reason::kKernelRefused, step, done.error().ToString());
}

// True when it was there and is gone.
Result<bool> Delete(NetlinkSocket& socket, const Direction& direction) {
  const auto done = socket.Request(BuildDeleteSa(direction));
  if (done) return true;
  if (done.error().number == ESRCH || done.error().number == ENOENT) return false;
  return Fail(Reason::kKernelRefused, "delete SA to " + direction.destination.ToString(),
              done.error().ToString());
}

}  // namespace

std::vector<uint8_t> BuildNewSa(const Address& source, const Address& destination, uint32_t reqid,
                                const SaSuite& suite, const SaKeys& keys) {
  nlmsghdr header{};
  header.nlmsg_type = XFRM_MSG_NEWSA;
  xfrm_usersa_info info{};
  info.family = ToAf(destination.family);
  info.id.daddr = ToXfrm(destination);
  info.id.spi = htonl(keys.spi);
  info.id.proto = IPPROTO_ESP;
  info.saddr = ToXfrm(source);
  // The kernel finds an inbound SA by its SPI and does not compare the source address in transport
  // mode (net/xfrm/xfrm_input.c); its selector is all that keeps this peer from sending under
  // another's address (xfrm_policy.c, __xfrm_policy_check).
  info.sel.family = info.family;
  info.sel.saddr = info.saddr;
  info.sel.prefixlen_s = static_cast<uint8_t>(source.Bits());
  info.sel.daddr = info.id.daddr;
  info.sel.prefixlen_d = static_cast<uint8_t>(destination.Bits());
  info.lft.soft_byte_limit = info.lft.hard_byte_limit = XFRM_INF;
  info.lft.soft_packet_limit = info.lft.hard_packet_limit = XFRM_INF;
  info.reqid = reqid;
  info.mode = XFRM_MODE_TRANSPORT;
  info.replay_window = kReplayWindow;
  std::vector<uint8_t> message;
  message.reserve(kLargestRequest);  // growing would leave keys behind in freed memory
  Append(&message, &header, sizeof(header));
  Append(&message, &info, sizeof(info));
  const std::span<const uint8_t> key = keys.encryption.octets();
  if (suite.cipher->kind == policy::Kind::kAead) {
    auto head = MakeHead<xfrm_algo_aead>(*suite.cipher, key.size());
    head.alg_icv_len = suite.cipher->icv_bits;
    AppendAlgorithm(&message, XFRMA_ALG_AEAD, head, key);
  } else {
    AppendAlgorithm(&message, XFRMA_ALG_CRYPT, MakeHead<xfrm_algo>(*suite.cipher, key.size()), key);
    const std::span<const uint8_t> integrity = keys.integrity->octets();
    auto head = MakeHead<xfrm_algo_auth>(*suite.integrity, integrity.size());
    head.alg_trunc_len = suite.integrity->icv_bits;
    AppendAlgorithm(&message, XFRMA_ALG_AUTH_TRUNC, head, integrity);
  }
  SetLength(&message);
  return message;
}

Result<void> InstallPair(std::span<const uint8_t> secret, const ManualSa& sa) {
  Result<Pair> pair = DerivePair(secret, sa);
  if (!pair) return std::unexpected(pair.error());
  Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_XFRM);
  if (!socket) return std::unexpected(socket.error());
  if (Result<void> in = Install(*socket, pair->in, sa.reqid, pair->suite); !in) return in;
  Result<void> out = Install(*socket, pair->out, sa.reqid, pair->suite);
  if (!out) (void)Delete(*socket, pair->in);
  return out;
}

Result<void> DeletePair(std::span<const uint8_t> secret, const ManualSa& sa) {
  Result<Pair> pair = DerivePair(secret, sa);
  if (!pair) return std::unexpected(pair.error());
  Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_XFRM);
  if (!socket) return std::unexpected(socket.error());
  const Result<bool> out = Delete(*socket, pair->out);
  const Result<bool> in = Delete(*socket, pair->in);
  if (!out) return std::unexpected(out.error());
  if (!in) return std::unexpected(in.error());
  if (!*out && !*in) return Fail(Reason::kNoSa, "delete SAs", "neither is there");
  return {};
}

}  // namespace latchkey::broker
