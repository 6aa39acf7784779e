#include "tools/latchkeyd/kernel/xfrm_parse.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <netlink/attr.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "policy/suites.h"
#include "tools/latchkeyd/kernel/addresses.h"

namespace latchkey::broker {
namespace {

constexpr uint8_t kOffloadPacket = 4;  // XFRM_OFFLOAD_PACKET, since Linux 6.2

// The 64-bit layout is all that the kernel talks to us (KERNEL.md 1.8: 32-bit callers are refused).
static_assert(sizeof(xfrm_usersa_info) == 224);
static_assert(sizeof(xfrm_usersa_id) == 24);
static_assert(sizeof(xfrm_user_expire) == 232);
static_assert(sizeof(xfrm_userpolicy_info) == 168);
static_assert(sizeof(xfrm_user_tmpl) == 64);

using Octets = std::span<const uint8_t>;

struct Message {
  uint16_t type = 0;
  Octets payload;
};

std::optional<Message> Open(Octets octets) {
  nlmsghdr header;
  if (reinterpret_cast<uintptr_t>(octets.data()) % NLMSG_ALIGNTO != 0) return std::nullopt;
  if (octets.size() < sizeof(header)) return std::nullopt;
  std::memcpy(&header, octets.data(), sizeof(header));
  if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > octets.size()) return std::nullopt;
  octets = octets.first(header.nlmsg_len);
  return Message{header.nlmsg_type, octets.subspan(NLMSG_HDRLEN)};
}

// Copies a fixed structure out of the beginning of `octets`.
template <typename T>
bool Take(Octets octets, T* out) {
  if (octets.size() < sizeof(T)) return false;
  std::memcpy(out, octets.data(), sizeof(T));
  return true;
}

Octets Rest(Octets payload, size_t header) {
  const size_t aligned = NLMSG_ALIGN(header);
  return payload.size() > aligned ? payload.subspan(aligned) : Octets{};
}

// Calls `visit(type, value)` for each attribute; false as soon as it says so, or when octets are
// left over that are no attribute.
template <typename Visit>
bool ForEachAttribute(Octets octets, Visit visit) {
  if (octets.size() > std::numeric_limits<int>::max()) return false;
  int remaining = static_cast<int>(octets.size());
  const auto* attribute = reinterpret_cast<const nlattr*>(octets.data());
  while (remaining > 0 && nla_ok(attribute, remaining)) {
    const Octets value(static_cast<const uint8_t*>(nla_data(attribute)),
                       static_cast<size_t>(nla_len(attribute)));
    if (!visit(nla_type(attribute), value)) return false;
    attribute = nla_next(attribute, &remaining);
  }
  return remaining <= 0;
}

template <size_t kSize>
std::string Name(const char (&name)[kSize]) {
  return std::string(name, strnlen(name, kSize));
}

// The suite of an algorithm of the kernel's; nothing when the table does not list it. `icv_bits` of
// nothing: the kind has none.
const policy::Suite* FindSuite(policy::Kind kind, const std::string& kernel,
                               std::optional<uint32_t> icv_bits) {
  // To the table 0 means any, so a length of 0 in a message must not get there.
  if (icv_bits && (*icv_bits == 0 || *icv_bits > 0xffff)) return nullptr;
  return policy::SuiteByKernel(kind, kernel, static_cast<uint16_t>(icv_bits.value_or(0)));
}

std::string NameOf(const policy::Suite* suite, const std::string& kernel) {
  return suite != nullptr ? std::string(suite->name) : kernel;
}

uint16_t KeyBits(const policy::Suite* suite, uint32_t bits) {
  const uint32_t salt = suite != nullptr ? suite->salt_bits : 0;
  return static_cast<uint16_t>(std::min(bits > salt ? bits - salt : 0, 0xffffu));
}

Address Masked(Address address, uint8_t length) {
  for (int bit = length; bit < address.Bits(); ++bit) {
    address.octets[static_cast<size_t>(bit / 8)] &= static_cast<uint8_t>(~(0x80u >> (bit % 8)));
  }
  return address;
}

bool ReadSelector(const xfrm_selector& from, Selector* to) {
  to->family = FromAf(from.family);
  to->protocol = from.proto;
  to->source_port = ntohs(from.sport);
  to->source_mask = ntohs(from.sport_mask);
  to->destination_port = ntohs(from.dport);
  to->destination_mask = ntohs(from.dport_mask);
  if (to->family == Family::kNone) return from.family == AF_UNSPEC;
  const Address source = FromXfrm(from.family, from.saddr);
  const Address destination = FromXfrm(from.family, from.daddr);
  if (from.prefixlen_s > source.Bits() || from.prefixlen_d > destination.Bits()) return false;
  to->source = Prefix{Masked(source, from.prefixlen_s), from.prefixlen_s};
  to->destination = Prefix{Masked(destination, from.prefixlen_d), from.prefixlen_d};
  return true;
}

SaProtocol ReadProtocol(uint8_t protocol) {
  if (protocol == IPPROTO_ESP) return SaProtocol::kEsp;
  if (protocol == IPPROTO_AH) return SaProtocol::kAh;
  return SaProtocol::kNone;
}

Mode ReadMode(uint8_t mode) {
  switch (mode) {
    case XFRM_MODE_TRANSPORT:
      return Mode::kTransport;
    case XFRM_MODE_TUNNEL:
      return Mode::kTunnel;
    case XFRM_MODE_BEET:
      return Mode::kBeet;
    default:
      return Mode::kUnknown;
  }
}

// An end of a tunnel; a template that leaves it open has zeros there.
Address FromTemplate(uint16_t family, const xfrm_address_t& address) {
  if (FromAf(family) == Family::kNone) return {};
  const Address end = FromXfrm(family, address);
  return end.IsAny() ? Address{} : end;
}

bool ReadSaInfo(const xfrm_usersa_info& info, Sa* sa) {
  if (FromAf(info.family) == Family::kNone) return false;
  sa->key.destination = FromXfrm(info.family, info.id.daddr);
  sa->key.spi = ntohl(info.id.spi);
  sa->key.protocol = ReadProtocol(info.id.proto);
  sa->source = FromXfrm(info.family, info.saddr);
  sa->reqid = info.reqid;
  sa->added = info.curlft.add_time;
  sa->protection.protocol = sa->key.protocol;
  sa->protection.mode = ReadMode(info.mode);
  sa->protection.replay = info.replay_window > 0;
  sa->protection.esn = (info.flags & XFRM_STATE_ESN) != 0;
  return ReadSelector(info.sel, &sa->selector);
}

bool ReadSaAttributes(Octets attributes, Sa* sa) {
  bool has_algorithm = false;
  bool has_truncation = false;
  Protection& protection = sa->protection;
  const bool whole = ForEachAttribute(attributes, [&](int type, Octets value) {
    switch (type) {
      case XFRMA_ALG_AEAD: {
        xfrm_algo_aead head;
        if (!Take(value, &head)) return false;
        const std::string kernel = Name(head.alg_name);
        const policy::Suite* suite = FindSuite(policy::Kind::kAead, kernel, head.alg_icv_len);
        protection.encryption = NameOf(suite, kernel);
        protection.key_bits = KeyBits(suite, head.alg_key_len);
        has_algorithm = true;
        return true;
      }
      case XFRMA_ALG_CRYPT: {
        xfrm_algo head;
        if (!Take(value, &head)) return false;
        const std::string kernel = Name(head.alg_name);
        const policy::Suite* suite = FindSuite(policy::Kind::kCipher, kernel, std::nullopt);
        protection.encryption = NameOf(suite, kernel);
        protection.key_bits = KeyBits(suite, head.alg_key_len);
        has_algorithm = true;
        return true;
      }
      case XFRMA_ALG_AUTH_TRUNC: {
        xfrm_algo_auth head;
        if (!Take(value, &head)) return false;
        const std::string kernel = Name(head.alg_name);
        protection.integrity =
            NameOf(FindSuite(policy::Kind::kIntegrity, kernel, head.alg_trunc_len), kernel);
        has_algorithm = has_truncation = true;
        return true;
      }
      case XFRMA_ALG_AUTH: {
        xfrm_algo head;
        if (!Take(value, &head)) return false;
        // Kernels send the truncation too. Alone, this does not say how much of the digest is
        // kept, so that no name of ours fits.
        if (!has_truncation) protection.integrity = Name(head.alg_name);
        has_algorithm = true;
        return true;
      }
      case XFRMA_REPLAY_ESN_VAL: {
        xfrm_replay_state_esn head;
        if (!Take(value, &head)) return false;
        if (head.replay_window > 0) protection.replay = true;
        return true;
      }
      case XFRMA_MARK: {
        xfrm_mark mark;
        if (!Take(value, &mark)) return false;
        sa->mark = mark.v;
        sa->mark_mask = mark.m;
        return true;
      }
      case XFRMA_SET_MARK:
        return Take(value, &sa->set_mark);
      case XFRMA_SET_MARK_MASK:
        return Take(value, &sa->set_mask);
      case XFRMA_IF_ID:
        return Take(value, &sa->if_id);
      case XFRMA_OFFLOAD_DEV: {
        xfrm_user_offload head;
        if (!Take(value, &head)) return false;
        sa->offload = (head.flags & kOffloadPacket) != 0 ? Offload::kPacket : Offload::kCrypto;
        return true;
      }
      default:
        return true;
    }
  });
  sa->larval = sa->key.spi == 0 || !has_algorithm;
  return whole;
}

std::optional<Sa> ReadSa(Octets payload, size_t header) {
  xfrm_usersa_info info;
  Sa sa;
  if (!Take(payload, &info) || payload.size() < header) return std::nullopt;
  if (!ReadSaInfo(info, &sa)) return std::nullopt;
  if (!ReadSaAttributes(Rest(payload, header), &sa)) return std::nullopt;
  return sa;
}

// True when the kernel never took a packet in under an incoming SA. It notes the time of use before
// it decrypts, and counts after; what a card decrypts for it may be counted elsewhere.
bool Unused(const xfrm_usersa_info& info, const Sa& sa) {
  const xfrm_lifetime_cur& used = info.curlft;
  return used.use_time == 0 && used.packets == 0 && used.bytes == 0 && sa.offload == Offload::kNone;
}

// DELSA begins with the SA's id; the rest of it is the attribute XFRMA_SA.
std::optional<KernelEvent> ReadDeletedSa(Octets payload) {
  xfrm_usersa_id id;
  if (!Take(payload, &id) || FromAf(id.family) == Family::kNone) return std::nullopt;
  Sa sa;
  std::optional<xfrm_usersa_info> told;
  const Octets attributes = Rest(payload, sizeof(id));
  const bool whole = ForEachAttribute(attributes, [&](int type, Octets value) {
    xfrm_usersa_info info;
    if (type != XFRMA_SA) return true;
    if (!Take(value, &info) || !ReadSaInfo(info, &sa)) return false;
    told = info;
    return true;
  });
  sa.key.destination = FromXfrm(id.family, id.daddr);
  sa.key.spi = ntohl(id.spi);
  sa.key.protocol = ReadProtocol(id.proto);
  if (!whole || !ReadSaAttributes(attributes, &sa)) return std::nullopt;
  const bool unused = told && Unused(*told, sa);
  return KernelEvent{KernelEvent::Kind::kSaDeleted, std::move(sa), unused};
}

std::optional<KernelEvent> SaEvent(KernelEvent::Kind kind, std::optional<Sa> sa) {
  if (!sa) return KernelEvent{KernelEvent::Kind::kOverrun, {}};
  return KernelEvent{kind, std::move(*sa)};
}

}  // namespace

std::optional<Sa> ParseSa(Octets octets) {
  const std::optional<Message> message = Open(octets);
  if (!message) return std::nullopt;
  if (message->type != XFRM_MSG_NEWSA && message->type != XFRM_MSG_UPDSA) return std::nullopt;
  return ReadSa(message->payload, sizeof(xfrm_usersa_info));
}

std::optional<SpdEntry> ParseSpdEntry(Octets octets) {
  const std::optional<Message> message = Open(octets);
  if (!message) return std::nullopt;
  if (message->type != XFRM_MSG_NEWPOLICY && message->type != XFRM_MSG_UPDPOLICY) {
    return std::nullopt;
  }
  xfrm_userpolicy_info info;
  SpdEntry entry;
  if (!Take(message->payload, &info)) return std::nullopt;
  if (!ReadSelector(info.sel, &entry.selector)) return std::nullopt;
  // The low three bits of the index tell a socket's policy (3, 4) from an entry of the SPD.
  const auto socket_dir = static_cast<uint8_t>(info.index & 7);
  entry.dir = socket_dir > XFRM_POLICY_FWD ? socket_dir : info.dir;
  entry.index = info.index;
  entry.priority = info.priority;
  entry.block = info.action != XFRM_POLICY_ALLOW;
  entry.bare = !entry.block;
  bool has_template = false;
  const bool whole =
      ForEachAttribute(Rest(message->payload, sizeof(info)), [&](int type, Octets value) {
        xfrm_mark mark;
        switch (type) {
          case XFRMA_TMPL:
            for (; !value.empty(); value = value.subspan(sizeof(xfrm_user_tmpl))) {
              xfrm_user_tmpl tmpl;
              if (!Take(value, &tmpl)) return false;
              const bool required = tmpl.optional == 0;
              if (has_template && !(required && entry.bare)) continue;
              has_template = true;
              if (required) entry.bare = false;
              entry.protocol = ReadProtocol(tmpl.id.proto);
              entry.mode = ReadMode(tmpl.mode);
              entry.reqid = tmpl.reqid;
              entry.tunnel_source = entry.tunnel_destination = Address{};
              if (entry.mode == Mode::kTunnel) {
                entry.tunnel_source = FromTemplate(tmpl.family, tmpl.saddr);
                entry.tunnel_destination = FromTemplate(tmpl.family, tmpl.id.daddr);
              }
            }
            return true;
          case XFRMA_MARK:
            if (!Take(value, &mark)) return false;
            entry.mark = mark.v;
            entry.mark_mask = mark.m;
            return true;
          case XFRMA_IF_ID:
            return Take(value, &entry.if_id);
          default:
            return true;
        }
      });
  if (!whole) return std::nullopt;
  return entry;
}

std::optional<SpdDefault> ParseSpdDefault(Octets octets) {
  const std::optional<Message> message = Open(octets);
  xfrm_userpolicy_default value;
  if (!message || message->type != XFRM_MSG_GETDEFAULT || !Take(message->payload, &value)) {
    return std::nullopt;
  }
  // What is neither is not known to let anything pass.
  return SpdDefault{value.in != XFRM_USERPOLICY_ACCEPT, value.out != XFRM_USERPOLICY_ACCEPT};
}

std::optional<KernelEvent> ParseEvent(Octets octets) {
  KernelEvent overrun{KernelEvent::Kind::kOverrun, {}};
  const std::optional<Message> message = Open(octets);
  if (!message) return overrun;
  switch (message->type) {
    case NLMSG_NOOP:
    case NLMSG_DONE:
    case XFRM_MSG_ACQUIRE:
    case XFRM_MSG_NEWAE:
    case XFRM_MSG_REPORT:
      return std::nullopt;
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
      return SaEvent(KernelEvent::Kind::kSaAdded, ParseSa(octets));
    case XFRM_MSG_DELSA:
      return ReadDeletedSa(message->payload).value_or(overrun);
    case XFRM_MSG_EXPIRE: {
      xfrm_user_expire expire;
      if (!Take(message->payload, &expire)) return overrun;
      if (expire.hard == 0) return std::nullopt;
      std::optional<KernelEvent> gone = SaEvent(KernelEvent::Kind::kSaDeleted,
                                                ReadSa(message->payload, sizeof(xfrm_user_expire)));
      gone->unused = gone->kind == KernelEvent::Kind::kSaDeleted && Unused(expire.state, gone->sa);
      return gone;
    }
    case XFRM_MSG_FLUSHSA:
      return KernelEvent{KernelEvent::Kind::kSaFlushed, {}};
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
    case XFRM_MSG_DELPOLICY:
    case XFRM_MSG_POLEXPIRE:
    case XFRM_MSG_FLUSHPOLICY:
    case XFRM_MSG_GETDEFAULT:
    case XFRM_MSG_SETDEFAULT:
      return KernelEvent{KernelEvent::Kind::kSpdChanged, {}};
    default:
      return overrun;
  }
}

}  // namespace latchkey::broker
