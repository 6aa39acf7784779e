#include "tools/latchkeyd/kernel/sa_tag.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <string.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::broker {
namespace {

using Octets = std::vector<uint8_t>;

constexpr const char* kStep = "tag SA";

void Append(Octets* out, const void* data, size_t size) {
  const auto* octets = static_cast<const uint8_t*>(data);
  out->insert(out->end(), octets, octets + size);
  out->resize(NLMSG_ALIGN(out->size()));
}

template <typename T>
void AppendAttribute(Octets* out, uint16_t type, const T& value) {
  nlattr header{};
  header.nla_type = type;
  header.nla_len = static_cast<uint16_t>(NLA_HDRLEN + sizeof(value));
  Append(out, &header, sizeof(header));
  Append(out, &value, sizeof(value));
}

void SetLength(Octets* message) {
  const auto length = static_cast<uint32_t>(message->size());
  std::memcpy(message->data(), &length, sizeof(length));
}

// Kept out of what is sent back: our own of these are put in; a card is not told of it anew (the
// kernel would tell it, and then throw the whole away); the last use is not ours to say.
bool LeftOut(uint16_t type) {
  return type == XFRMA_SET_MARK || type == XFRMA_SET_MARK_MASK || type == XFRMA_LTIME_VAL ||
         type == XFRMA_OFFLOAD_DEV || type == XFRMA_LASTUSED || type == XFRMA_PAD;
}

std::unexpected<Error> Refused(const char* call, const NetlinkError& error) {
  if (error.number == ESRCH || error.number == ENOENT) {
    return Fail(Reason::kNoSa, kStep, "it is not there any more");
  }
  return Fail(Reason::kKernelRefused, kStep, std::string(call) + ": " + error.ToString());
}

struct Wiped {
  Octets octets;

  Wiped() = default;
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ~Wiped() { explicit_bzero(octets.data(), octets.size()); }
};

}  // namespace

std::vector<uint8_t> BuildGetSa(const Sa& sa) {
  nlmsghdr header{};
  header.nlmsg_type = XFRM_MSG_GETSA;
  xfrm_usersa_id id{};
  id.daddr = ToXfrm(sa.key.destination);
  id.spi = htonl(sa.key.spi);
  id.family = ToAf(sa.key.destination.family);
  id.proto = static_cast<uint8_t>(sa.key.protocol);
  Octets out;
  Append(&out, &header, sizeof(header));
  Append(&out, &id, sizeof(id));
  if (sa.mark != 0 || sa.mark_mask != 0) {
    AppendAttribute(&out, XFRMA_MARK, xfrm_mark{sa.mark, sa.mark_mask});
  }
  SetLength(&out);
  return out;
}

Result<std::vector<uint8_t>> BuildTagSa(std::span<const uint8_t> told, uint32_t tag,
                                        uint32_t mask) {
  const std::optional<Sa> sa = ParseSa(told);  // which checks every length
  if (!sa) return Fail(Reason::kKernelRefused, kStep, "unreadable SA");
  nlmsghdr header;
  xfrm_usersa_info info;
  std::memcpy(&header, told.data(), sizeof(header));
  std::memcpy(&info, told.data() + NLMSG_HDRLEN, sizeof(info));
  std::span<const uint8_t> rest =
      told.subspan(NLMSG_HDRLEN + sizeof(info), header.nlmsg_len - NLMSG_HDRLEN - sizeof(info));
  header = nlmsghdr{};
  header.nlmsg_type = XFRM_MSG_UPDSA;
  Octets out;
  out.reserve(told.size() + 256);  // growing would leave keys behind in freed memory
  Append(&out, &header, sizeof(header));
  Append(&out, &info, sizeof(info));
  while (rest.size() >= NLA_HDRLEN) {
    nlattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (!LeftOut(attribute.nla_type & NLA_TYPE_MASK)) Append(&out, rest.data(), attribute.nla_len);
    const size_t whole = NLA_ALIGN(attribute.nla_len);
    rest = rest.subspan(whole < rest.size() ? whole : rest.size());
  }
  // So that the event which follows tells the same counters and time of birth.
  AppendAttribute(&out, XFRMA_LTIME_VAL, info.curlft);
  const uint32_t value = (sa->set_mark & sa->set_mask & ~mask) | (tag & mask);
  AppendAttribute(&out, XFRMA_SET_MARK, value);
  AppendAttribute(&out, XFRMA_SET_MARK_MASK, sa->set_mask | mask);
  SetLength(&out);
  return out;
}

Result<void> TagIncomingSa(NetlinkSocket& socket, const Sa& sa, uint32_t tag, uint32_t mask) {
  if (mask == 0 || (tag & ~mask) != 0 || sa.larval || sa.key.protocol == SaProtocol::kNone) {
    return Fail(Reason::kBadRequest, kStep, "no SA, or no tag");
  }
  Wiped told;
  const auto got = socket.Get(BuildGetSa(sa), [&told](std::span<const uint8_t> message) {
    if (told.octets.empty()) told.octets.assign(message.begin(), message.end());
    return true;
  });
  if (!got) return Refused("XFRM_MSG_GETSA", got.error());
  const std::optional<Sa> there = ParseSa(told.octets);
  if (!there) return Fail(Reason::kKernelRefused, kStep, "unreadable SA");
  if (there->key != sa.key || there->source != sa.source || there->reqid != sa.reqid ||
      there->mark != sa.mark || there->mark_mask != sa.mark_mask || there->larval) {
    return Fail(Reason::kConflictSa, kStep, "another one is in its place");
  }
  if (there->offload != Offload::kNone) {
    return Fail(Reason::kOffloadUntagged, kStep, "a card does its work");
  }
  Wiped request;
  Result<Octets> built = BuildTagSa(told.octets, tag, mask);
  if (!built) return std::unexpected(built.error());
  request.octets = std::move(*built);
  if (const auto done = socket.Request(request.octets); !done) {
    return Refused("XFRM_MSG_UPDSA", done.error());
  }
  return {};
}

}  // namespace latchkey::broker
