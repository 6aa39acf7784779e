#include "tools/latchkeyd/kernel/xfrm_parse.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

namespace latchkey::broker {
namespace {

// Builds one message piece by piece, as the kernel lays it out.
class Message {
 public:
  explicit Message(uint16_t type) : type_(type) { octets_.resize(sizeof(nlmsghdr)); }

  template <typename T>
  Message& Fixed(const T& value) {
    return Raw(&value, sizeof(value));
  }
  Message& Raw(const void* data, size_t size) {
    const auto* octets = static_cast<const uint8_t*>(data);
    octets_.insert(octets_.end(), octets, octets + size);
    octets_.resize(NLMSG_ALIGN(octets_.size()));
    return *this;
  }
  template <typename T>
  Message& Attribute(uint16_t type, const T& value, size_t more = 0) {
    nlattr header{};
    header.nla_type = type;
    header.nla_len = static_cast<uint16_t>(sizeof(header) + sizeof(value) + more);
    Raw(&header, sizeof(header));
    const auto* octets = reinterpret_cast<const uint8_t*>(&value);
    octets_.insert(octets_.end(), octets, octets + sizeof(value));
    octets_.resize(NLMSG_ALIGN(octets_.size() + more));
    return *this;
  }
  std::vector<uint8_t> Done() const {
    std::vector<uint8_t> octets = octets_;
    nlmsghdr header{};
    header.nlmsg_len = static_cast<uint32_t>(octets.size());
    header.nlmsg_type = type_;
    std::memcpy(octets.data(), &header, sizeof(header));
    return octets;
  }

 private:
  uint16_t type_;
  std::vector<uint8_t> octets_;
};

xfrm_usersa_info Info() {
  xfrm_usersa_info info{};
  info.family = AF_INET;
  info.id.daddr.a4 = htonl(0x0a090002);
  info.id.spi = htonl(0x101);
  info.id.proto = IPPROTO_ESP;
  info.saddr.a4 = htonl(0x0a090001);
  info.reqid = 7;
  info.mode = XFRM_MODE_TRANSPORT;
  info.replay_window = 32;
  info.sel.family = AF_INET;
  return info;
}

template <typename T>
T Algorithm(const char* name, unsigned bits) {
  T algorithm{};
  std::strncpy(algorithm.alg_name, name, sizeof(algorithm.alg_name) - 1);
  algorithm.alg_key_len = bits;
  return algorithm;
}

xfrm_algo_aead Gcm(unsigned icv = 128) {
  auto gcm = Algorithm<xfrm_algo_aead>("rfc4106(gcm(aes))", 288);
  gcm.alg_icv_len = icv;
  return gcm;
}

Message NewSa() {
  return Message(XFRM_MSG_NEWSA).Fixed(Info()).Attribute(XFRMA_ALG_AEAD, Gcm(), 36);
}

TEST_CASE("Whose work an SA is, the kernel's or a card's") {
  const auto offload = [](uint8_t flags) {
    const auto octets = NewSa().Attribute(XFRMA_OFFLOAD_DEV, xfrm_user_offload{2, flags}).Done();
    return ParseSa(octets).value().offload;
  };
  CHECK(offload(2) == Offload::kCrypto);
  CHECK(offload(4) == Offload::kPacket);
  CHECK(ParseSa(NewSa().Done())->offload == Offload::kNone);
}

TEST_CASE("An AEAD SA in our own terms") {
  const std::optional<Sa> sa = ParseSa(NewSa().Done());
  REQUIRE(sa);
  CHECK(sa->key == SaKey{*Address::Parse("10.9.0.2"), 0x101, SaProtocol::kEsp});
  CHECK(sa->source == *Address::Parse("10.9.0.1"));
  CHECK(sa->reqid == 7);
  CHECK(sa->protection.mode == Mode::kTransport);
  CHECK(sa->protection.encryption == "aes-gcm-16");
  CHECK(sa->protection.integrity.empty());
  CHECK(sa->protection.key_bits == 256);
  CHECK(sa->protection.replay);
  CHECK_FALSE(sa->protection.esn);
  CHECK_FALSE(sa->larval);
  CHECK(sa->mark_mask == 0);
}

TEST_CASE("Cipher and integrity, ESN, mark and interface") {
  xfrm_usersa_info info = Info();
  info.family = AF_INET6;
  std::memset(&info.id.daddr, 0xfd, 16);
  info.flags = XFRM_STATE_ESN;
  info.replay_window = 0;
  info.sel.family = AF_UNSPEC;
  xfrm_replay_state_esn esn{};
  esn.replay_window = 128;
  auto truncated = Algorithm<xfrm_algo_auth>("hmac(sha256)", 256);
  truncated.alg_trunc_len = 128;
  const auto octets = Message(XFRM_MSG_UPDSA)
                          .Fixed(info)
                          .Attribute(XFRMA_ALG_AUTH, Algorithm<xfrm_algo>("hmac(sha256)", 256), 32)
                          .Attribute(XFRMA_ALG_AUTH_TRUNC, truncated, 32)
                          .Attribute(XFRMA_ALG_CRYPT, Algorithm<xfrm_algo>("cbc(aes)", 128), 16)
                          .Attribute(999, uint64_t{1})
                          .Attribute(XFRMA_REPLAY_ESN_VAL, esn, 16)
                          .Attribute(XFRMA_MARK, xfrm_mark{5, 0xff})
                          .Attribute(XFRMA_SET_MARK, uint32_t{0x70000})
                          .Attribute(XFRMA_SET_MARK_MASK, uint32_t{0xf0000})
                          .Attribute(XFRMA_IF_ID, uint32_t{9})
                          .Done();
  const std::optional<Sa> sa = ParseSa(octets);
  REQUIRE(sa);
  CHECK(sa->key.destination.family == Family::kV6);
  CHECK(sa->selector.family == Family::kNone);
  CHECK(sa->protection.encryption == "aes-cbc");
  CHECK(sa->protection.integrity == "hmac-sha2-256");
  CHECK(sa->protection.key_bits == 128);
  CHECK(sa->protection.replay);
  CHECK(sa->protection.esn);
  CHECK(sa->mark == 5);
  CHECK(sa->mark_mask == 0xff);
  CHECK(sa->set_mark == 0x70000);
  CHECK(sa->set_mask == 0xf0000);
  CHECK(sa->if_id == 9);
}

TEST_CASE("Algorithms that the table does not list, or list so, keep the kernel's name") {
  const auto aead = [](unsigned icv) {
    return ParseSa(Message(XFRM_MSG_NEWSA).Fixed(Info()).Attribute(XFRMA_ALG_AEAD, Gcm(icv)).Done())
        ->protection.encryption;
  };
  CHECK(aead(64) == "aes-gcm-8");
  CHECK(aead(0) == "rfc4106(gcm(aes))");
  CHECK(aead(32) == "rfc4106(gcm(aes))");
  CHECK(aead(65536 + 128) == "rfc4106(gcm(aes))");
  auto legacy = Algorithm<xfrm_algo_auth>("hmac(sha256)", 256);
  legacy.alg_trunc_len = 96;
  const auto cipher = Algorithm<xfrm_algo>("cbc(des3_ede)", 192);
  const std::optional<Sa> sa = ParseSa(Message(XFRM_MSG_NEWSA)
                                           .Fixed(Info())
                                           .Attribute(XFRMA_ALG_CRYPT, cipher)
                                           .Attribute(XFRMA_ALG_AUTH_TRUNC, legacy)
                                           .Done());
  REQUIRE(sa);
  CHECK(sa->protection.encryption == "cbc(des3_ede)");
  CHECK(sa->protection.integrity == "hmac(sha256)");
  CHECK(sa->protection.key_bits == 192);
  // Without the truncation it is not known which suite it is.
  CHECK(ParseSa(Message(XFRM_MSG_NEWSA)
                    .Fixed(Info())
                    .Attribute(XFRMA_ALG_AUTH, Algorithm<xfrm_algo>("hmac(sha256)", 256))
                    .Done())
            ->protection.integrity == "hmac(sha256)");
}

TEST_CASE("Larval SAs, IPCOMP and a window of zero") {
  xfrm_usersa_info info = Info();
  info.id.spi = 0;
  CHECK(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Done())->larval);
  info = Info();
  CHECK(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Done())->larval);
  info.id.proto = IPPROTO_COMP;
  const auto deflate = Algorithm<xfrm_algo>("deflate", 0);
  const auto comp = Message(XFRM_MSG_NEWSA).Fixed(info).Attribute(XFRMA_ALG_COMP, deflate).Done();
  CHECK(ParseSa(comp)->larval);
  CHECK(ParseSa(comp)->key.protocol == SaProtocol::kNone);
  info = Info();
  info.replay_window = 0;
  CHECK_FALSE(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Attribute(XFRMA_ALG_AEAD, Gcm()).Done())
                  ->protection.replay);
}

TEST_CASE("What is no SA is none") {
  xfrm_usersa_info info = Info();
  info.family = AF_UNIX;
  CHECK_FALSE(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Done()));
  info = Info();
  info.sel.prefixlen_d = 33;
  CHECK_FALSE(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Done()));
  CHECK_FALSE(ParseSa(Message(XFRM_MSG_DELSA).Fixed(Info()).Done()));
  CHECK_FALSE(ParseSpdEntry(NewSa().Done()));
  CHECK_FALSE(ParseSpdDefault(NewSa().Done()));
}

TEST_CASE("A deleted SA is known by its id, and whole from the SA inside") {
  xfrm_usersa_id id{};
  id.family = AF_INET;
  id.daddr.a4 = htonl(0x0a090002);
  id.spi = htonl(0x101);
  id.proto = IPPROTO_ESP;
  const auto event = ParseEvent(Message(XFRM_MSG_DELSA)
                                    .Fixed(id)
                                    .Attribute(XFRMA_SA, Info())
                                    .Attribute(XFRMA_ALG_AEAD, Gcm(), 36)
                                    .Done());
  REQUIRE(event);
  CHECK(event->kind == KernelEvent::Kind::kSaDeleted);
  CHECK(event->sa == *ParseSa(NewSa().Done()));
  const auto bare = ParseEvent(Message(XFRM_MSG_DELSA).Fixed(id).Done());
  REQUIRE(bare);
  CHECK(bare->kind == KernelEvent::Kind::kSaDeleted);
  CHECK(bare->sa.key == event->sa.key);
}

TEST_CASE("When an SA was made, and whether it was ever used when it goes") {
  xfrm_usersa_id id{};
  id.family = AF_INET;
  xfrm_usersa_info info = Info();
  info.curlft.add_time = 1'700'000'000;
  CHECK(ParseSa(Message(XFRM_MSG_NEWSA).Fixed(info).Done())->added == 1'700'000'000);
  const auto unused = [&](const xfrm_usersa_info& told, uint8_t offload = 0) {
    Message message(XFRM_MSG_DELSA);
    message.Fixed(id).Attribute(XFRMA_SA, told);
    if (offload != 0) message.Attribute(XFRMA_OFFLOAD_DEV, xfrm_user_offload{2, offload});
    const bool deleted = ParseEvent(message.Done())->unused;
    if (offload == 0) {
      CHECK(ParseEvent(Message(XFRM_MSG_EXPIRE).Fixed(xfrm_user_expire{told, 1}).Done())->unused ==
            deleted);
    }
    return deleted;
  };
  CHECK(unused(info));
  CHECK_FALSE(unused(info, 2));
  xfrm_usersa_info used = info;
  used.curlft.packets = 1;
  CHECK_FALSE(unused(used));
  used = info;
  used.curlft.use_time = 1;  // being decrypted
  CHECK_FALSE(unused(used));
  CHECK_FALSE(ParseEvent(Message(XFRM_MSG_DELSA).Fixed(id).Done())->unused);
}

TEST_CASE("Only a hard expiry ends an SA") {
  xfrm_user_expire expire{};
  expire.state = Info();
  CHECK_FALSE(ParseEvent(Message(XFRM_MSG_EXPIRE).Fixed(expire).Done()));
  expire.hard = 1;
  const auto event = ParseEvent(
      Message(XFRM_MSG_EXPIRE).Fixed(expire).Attribute(XFRMA_MARK, xfrm_mark{3, 3}).Done());
  REQUIRE(event);
  CHECK(event->kind == KernelEvent::Kind::kSaDeleted);
  CHECK(event->sa.key.spi == 0x101);
  CHECK(event->sa.mark == 3);
}

TEST_CASE("Every other message says what must be looked at again") {
  using Kind = KernelEvent::Kind;
  const auto kind = [](uint16_t type) { return ParseEvent(Message(type).Done())->kind; };
  CHECK(kind(XFRM_MSG_FLUSHSA) == Kind::kSaFlushed);
  for (const uint16_t type :
       {XFRM_MSG_NEWPOLICY, XFRM_MSG_UPDPOLICY, XFRM_MSG_DELPOLICY, XFRM_MSG_FLUSHPOLICY,
        XFRM_MSG_POLEXPIRE, XFRM_MSG_GETDEFAULT, XFRM_MSG_SETDEFAULT}) {
    CHECK(kind(type) == Kind::kSpdChanged);
  }
  for (const uint16_t type : {XFRM_MSG_MIGRATE, XFRM_MSG_MAPPING}) {
    CHECK(kind(type) == Kind::kOverrun);
  }
  CHECK(kind(XFRM_MSG_MAX + 7) == Kind::kOverrun);
  CHECK(kind(NLMSG_OVERRUN) == Kind::kOverrun);
  CHECK(kind(XFRM_MSG_NEWSA) == Kind::kOverrun);  // malformed
  CHECK_FALSE(ParseEvent(Message(XFRM_MSG_ACQUIRE).Done()));
  const auto event = ParseEvent(NewSa().Done());
  REQUIRE(event);
  CHECK(event->kind == Kind::kSaAdded);
  CHECK(event->sa == *ParseSa(NewSa().Done()));
}

xfrm_userpolicy_info PolicyInfo() {
  xfrm_userpolicy_info info{};
  info.sel.family = AF_INET;
  info.sel.saddr.a4 = htonl(0x0a0900ff);
  info.sel.prefixlen_s = 24;
  info.sel.proto = IPPROTO_TCP;
  info.sel.dport = htons(443);
  info.sel.dport_mask = htons(0xffff);
  info.dir = XFRM_POLICY_OUT;
  info.priority = 100;
  info.index = 0x11;
  return info;
}

TEST_CASE("An SPD entry, with its first template that must be there") {
  xfrm_user_tmpl tmpl[2] = {};
  tmpl[0].id.proto = IPPROTO_COMP;
  tmpl[0].optional = 1;
  tmpl[1].id.proto = IPPROTO_ESP;
  tmpl[1].mode = XFRM_MODE_TUNNEL;
  tmpl[1].reqid = 9;
  const auto entry = ParseSpdEntry(Message(XFRM_MSG_NEWPOLICY)
                                       .Fixed(PolicyInfo())
                                       .Attribute(XFRMA_TMPL, tmpl)
                                       .Attribute(XFRMA_MARK, xfrm_mark{1, 3})
                                       .Done());
  REQUIRE(entry);
  CHECK(entry->selector.source == *Prefix::Parse("10.9.0.0/24"));
  CHECK(entry->selector.destination == *Prefix::Parse("0.0.0.0/0"));
  CHECK(entry->selector.destination_port == 443);
  CHECK(entry->selector.destination_mask == 0xffff);
  CHECK(entry->selector.protocol == kProtocolTcp);
  CHECK(entry->priority == 100);
  CHECK(entry->dir == 1);
  CHECK_FALSE(entry->bare);
  CHECK(entry->protocol == SaProtocol::kEsp);
  CHECK(entry->mode == Mode::kTunnel);
  CHECK(entry->reqid == 9);
  CHECK(entry->mark == 1);
  CHECK(entry->mark_mask == 3);

  xfrm_user_tmpl optional = tmpl[1];
  optional.optional = 1;
  CHECK(ParseSpdEntry(
            Message(XFRM_MSG_NEWPOLICY).Fixed(PolicyInfo()).Attribute(XFRMA_TMPL, optional).Done())
            ->bare);
}

TEST_CASE("Block entries, bypasses and socket policies") {
  xfrm_userpolicy_info info = PolicyInfo();
  CHECK(ParseSpdEntry(Message(XFRM_MSG_NEWPOLICY).Fixed(info).Done())->bare);
  info.action = XFRM_POLICY_BLOCK;
  const auto block = ParseSpdEntry(Message(XFRM_MSG_UPDPOLICY).Fixed(info).Done());
  REQUIRE(block);
  CHECK(block->block);
  CHECK_FALSE(block->bare);
  info.index = 0x1c;  // a socket's outgoing policy
  CHECK(ParseSpdEntry(Message(XFRM_MSG_NEWPOLICY).Fixed(info).Done())->dir == 4);
}

TEST_CASE("The default lets pass only what it says it accepts") {
  const auto parse = [](uint8_t in, uint8_t out) {
    const xfrm_userpolicy_default value{in, XFRM_USERPOLICY_ACCEPT, out};
    return *ParseSpdDefault(Message(XFRM_MSG_GETDEFAULT).Fixed(value).Done());
  };
  CHECK(parse(XFRM_USERPOLICY_ACCEPT, XFRM_USERPOLICY_ACCEPT) == SpdDefault{false, false});
  CHECK(parse(XFRM_USERPOLICY_BLOCK, XFRM_USERPOLICY_ACCEPT) == SpdDefault{true, false});
  CHECK(parse(XFRM_USERPOLICY_ACCEPT, 77) == SpdDefault{false, true});
}

TEST_CASE("Cut off anywhere, or with any octet changed, a message is read safely") {
  xfrm_user_tmpl tmpl{};
  xfrm_usersa_id id{};
  id.family = AF_INET;
  const std::vector<uint8_t> messages[] = {
      NewSa().Attribute(XFRMA_MARK, xfrm_mark{1, 1}).Done(),
      Message(XFRM_MSG_NEWPOLICY).Fixed(PolicyInfo()).Attribute(XFRMA_TMPL, tmpl).Done(),
      Message(XFRM_MSG_DELSA).Fixed(id).Attribute(XFRMA_SA, Info()).Done(),
      Message(XFRM_MSG_EXPIRE).Fixed(xfrm_user_expire{Info(), 1}).Done()};
  for (const std::vector<uint8_t>& whole : messages) {
    for (size_t size = 0; size < whole.size(); ++size) {
      // In a buffer of exactly that size, so that a checker of memory sees one octet too far.
      std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
      const auto event = ParseEvent(cut);
      REQUIRE(event);
      CHECK(event->kind == KernelEvent::Kind::kOverrun);
      CHECK_FALSE(ParseSa(cut));
      CHECK_FALSE(ParseSpdEntry(cut));
      if (size < sizeof(nlmsghdr)) continue;
      const auto length = static_cast<uint32_t>(size);
      std::memcpy(cut.data(), &length, sizeof(length));
      (void)ParseEvent(cut);  // as if it were that long: may be whole, must not crash
      (void)ParseSpdEntry(cut);
    }
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const uint8_t value : {0x00, 0x01, 0x7f, 0xff}) {
        std::vector<uint8_t> changed = whole;
        changed[at] = value;
        (void)ParseEvent(changed);
        (void)ParseSa(changed);
        (void)ParseSpdEntry(changed);
      }
    }
  }
}

}  // namespace
}  // namespace latchkey::broker
