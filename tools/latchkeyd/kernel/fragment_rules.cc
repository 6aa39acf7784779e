#include "tools/latchkeyd/kernel/fragment_rules.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <string_view>
#include <utility>

namespace latchkey::broker {
namespace {

using Octets = std::vector<uint8_t>;

constexpr char kChain[] = "fragments";
constexpr int kPriority = -450;  // NF_IP_PRI_RAW_BEFORE_DEFRAG: connection tracking comes at -400
constexpr uint32_t kRegister = NFT_REG_1;
constexpr uint8_t kFragmentHeader = 44;
constexpr uint16_t kFragmentBits = 0x3fff;  // more fragments, and the offset

void AppendOctets(Octets* out, const void* data, size_t size) {
  const auto* octets = static_cast<const uint8_t*>(data);
  out->insert(out->end(), octets, octets + size);
  out->resize(NLMSG_ALIGN(out->size()));
}

// Attributes within attributes, each an octet string until it is put into another.
class Attributes {
 public:
  Attributes& Put(uint16_t type, std::span<const uint8_t> value) {
    nlattr header{};
    header.nla_type = type;
    header.nla_len = static_cast<uint16_t>(NLA_HDRLEN + value.size());
    AppendOctets(&octets_, &header, sizeof(header));
    AppendOctets(&octets_, value.data(), value.size());
    return *this;
  }
  Attributes& Nest(uint16_t type, const Attributes& inner) {
    return Put(static_cast<uint16_t>(type | NLA_F_NESTED), inner.octets_);
  }
  Attributes& Number(uint16_t type, uint32_t number) {  // big endian, as all of nf_tables
    const uint32_t wire = htonl(number);
    return Put(type, {reinterpret_cast<const uint8_t*>(&wire), sizeof(wire)});
  }
  Attributes& Octet(uint16_t type, uint8_t octet) { return Put(type, {&octet, 1}); }
  Attributes& Text(uint16_t type, std::string_view text) {
    Octets value(text.begin(), text.end());
    value.push_back(0);
    return Put(type, value);
  }
  const Octets& octets() const { return octets_; }

 private:
  Octets octets_;
};

// One rule: expressions, each of which may end it.
class RuleText {
 public:
  // Loads octets of the network header.
  RuleText& Load(uint32_t offset, uint32_t length) {
    return Add("payload", Attributes()
                              .Number(NFTA_PAYLOAD_DREG, kRegister)
                              .Number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
                              .Number(NFTA_PAYLOAD_OFFSET, offset)
                              .Number(NFTA_PAYLOAD_LEN, length));
  }
  RuleText& Mask(const Octets& mask) {
    const Octets zeros(mask.size());
    return Add("bitwise", Attributes()
                              .Number(NFTA_BITWISE_SREG, kRegister)
                              .Number(NFTA_BITWISE_DREG, kRegister)
                              .Number(NFTA_BITWISE_LEN, static_cast<uint32_t>(mask.size()))
                              .Nest(NFTA_BITWISE_MASK, Attributes().Put(NFTA_DATA_VALUE, mask))
                              .Nest(NFTA_BITWISE_XOR, Attributes().Put(NFTA_DATA_VALUE, zeros)));
  }
  RuleText& Compare(uint32_t how, const Octets& value) {
    return Add("cmp", Attributes()
                          .Number(NFTA_CMP_SREG, kRegister)
                          .Number(NFTA_CMP_OP, how)
                          .Nest(NFTA_CMP_DATA, Attributes().Put(NFTA_DATA_VALUE, value)));
  }
  RuleText& Is(const Octets& value) { return Compare(NFT_CMP_EQ, value); }
  // 1 where there is a fragment header, else 0.
  RuleText& LoadIsFragment() {
    return Add("exthdr", Attributes()
                             .Number(NFTA_EXTHDR_DREG, kRegister)
                             .Octet(NFTA_EXTHDR_TYPE, kFragmentHeader)
                             .Number(NFTA_EXTHDR_OFFSET, 0)
                             .Number(NFTA_EXTHDR_LEN, 1)
                             .Number(NFTA_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT));
  }
  // The reqid of the SA that the packet came out of; without one the rule ends.
  RuleText& LoadReqid() {
    return Add("xfrm", Attributes()
                           .Number(NFTA_XFRM_DREG, kRegister)
                           .Number(NFTA_XFRM_KEY, NFT_XFRM_KEY_REQID)
                           .Octet(NFTA_XFRM_DIR, XFRM_POLICY_IN)
                           .Number(NFTA_XFRM_SPNUM, 0));
  }
  RuleText& Within(const Prefix& prefix, uint32_t offset) {
    if (prefix.length == 0) return *this;
    const auto size = static_cast<size_t>(prefix.base.Bits() / 8);
    Octets mask(size);
    for (size_t bit = 0; bit < prefix.length; ++bit) {
      mask[bit / 8] = static_cast<uint8_t>(mask[bit / 8] | 0x80 >> (bit % 8));
    }
    const Octets base(prefix.base.octets.begin(),
                      prefix.base.octets.begin() + static_cast<std::ptrdiff_t>(size));
    return Load(offset, static_cast<uint32_t>(size)).Mask(mask).Is(base);
  }
  const Attributes& End(uint32_t verdict) {
    Add("immediate", Attributes()
                         .Number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT)
                         .Nest(NFTA_IMMEDIATE_DATA,
                               Attributes().Nest(NFTA_DATA_VERDICT,
                                                 Attributes().Number(NFTA_VERDICT_CODE, verdict))));
    return list_;
  }

 private:
  RuleText& Add(std::string_view name, const Attributes& data) {
    list_.Nest(NFTA_LIST_ELEM, Attributes().Text(NFTA_EXPR_NAME, name).Nest(NFTA_EXPR_DATA, data));
    return *this;
  }

  Attributes list_;
};

Octets HostOrder(uint32_t number) {
  Octets octets(sizeof(number));
  std::memcpy(octets.data(), &number, sizeof(number));
  return octets;
}

RuleText Between(const FragmentBan& ban) {
  const bool v4 = FamilyOf(ban) == NFPROTO_IPV4;
  RuleText rule;
  rule.Within(ban.remote, v4 ? 12 : 8).Within(ban.local, v4 ? 16 : 24);
  return rule;
}

// The rules of one family. Whatever is no fragment leaves at the first.
std::vector<Attributes> RulesOf(uint8_t family, const std::vector<FragmentBan>& bans) {
  std::vector<Attributes> rules;
  if (family == NFPROTO_IPV4) {
    const uint16_t bits = htons(kFragmentBits);
    Octets mask(sizeof(bits));
    std::memcpy(mask.data(), &bits, sizeof(bits));
    rules.push_back(RuleText().Load(6, 2).Mask(mask).Is({0, 0}).End(NF_ACCEPT));
    rules.push_back(RuleText().Load(9, 1).Compare(NFT_CMP_NEQ, {IPPROTO_TCP}).End(NF_ACCEPT));
  } else {
    // Which protocol it is of, the first fragment alone says: any other can claim what it likes.
    rules.push_back(RuleText().LoadIsFragment().Is({0}).End(NF_ACCEPT));
  }
  // All that may pass before anything is dropped: bans may overlap.
  std::set<std::pair<Prefix, Prefix>> pairs;
  for (const FragmentBan& ban : bans) {
    if (FamilyOf(ban) != family) continue;
    rules.push_back(Between(ban).LoadReqid().Is(HostOrder(ban.reqid)).End(NF_ACCEPT));
  }
  for (const FragmentBan& ban : bans) {
    if (FamilyOf(ban) != family || !pairs.emplace(ban.local, ban.remote).second) continue;
    rules.push_back(Between(ban).End(NF_DROP));
  }
  return rules;
}

// Requests one behind the other, between the marks of a batch.
class Batch {
 public:
  Batch() { Add(NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0, {}); }

  void Add(uint16_t type, uint8_t family, uint16_t flags, const Attributes& attributes) {
    last_ = octets_.size();
    nlmsghdr header{};
    header.nlmsg_len =
        static_cast<uint32_t>(NLMSG_HDRLEN + sizeof(nfgenmsg) + attributes.octets().size());
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = ++sequence_;
    nfgenmsg about{};
    about.nfgen_family = family;
    about.version = NFNETLINK_V0;
    about.res_id = family == AF_UNSPEC ? htons(NFNL_SUBSYS_NFTABLES) : 0;
    AppendOctets(&octets_, &header, sizeof(header));
    AppendOctets(&octets_, &about, sizeof(about));
    AppendOctets(&octets_, attributes.octets().data(), attributes.octets().size());
  }
  void Tables(int type, uint8_t family, uint16_t flags, const Attributes& attributes) {
    Add(static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), family, flags, attributes);
  }
  // The last request so far asks for an acknowledgement.
  FragmentBatch End() {
    nlmsghdr header;
    std::memcpy(&header, octets_.data() + last_, sizeof(header));
    header.nlmsg_flags |= NLM_F_ACK;
    std::memcpy(octets_.data() + last_, &header, sizeof(header));
    const uint32_t acknowledged = sequence_;
    Add(NFNL_MSG_BATCH_END, AF_UNSPEC, 0, {});
    return {std::move(octets_), acknowledged};
  }

 private:
  Octets octets_;
  size_t last_ = 0;
  uint32_t sequence_ = 0;
};

}  // namespace

uint8_t FamilyOf(const FragmentBan& ban) {
  return ban.local.base.family == Family::kV4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
}

size_t CountFragmentRules(uint8_t family, const std::vector<FragmentBan>& bans) {
  return RulesOf(family, bans).size();
}

FragmentBatch BuildFragmentBans(const std::string& table, bool owned,
                                const std::vector<FragmentBan>& bans) {
  Batch batch;
  for (const uint8_t family : {NFPROTO_IPV4, NFPROTO_IPV6}) {
    const Attributes named = Attributes()
                                 .Text(NFTA_TABLE_NAME, table)
                                 .Number(NFTA_TABLE_FLAGS, owned ? NFT_TABLE_F_OWNER : 0);
    // It is made so that it can be taken away, whether or not it was there.
    batch.Tables(NFT_MSG_NEWTABLE, family, NLM_F_CREATE, named);
    batch.Tables(NFT_MSG_DELTABLE, family, 0, Attributes().Text(NFTA_TABLE_NAME, table));
    if (std::ranges::none_of(bans, [&](const auto& ban) { return FamilyOf(ban) == family; })) {
      continue;
    }
    batch.Tables(NFT_MSG_NEWTABLE, family, NLM_F_CREATE, named);
    batch.Tables(NFT_MSG_NEWCHAIN, family, NLM_F_CREATE,
                 Attributes()
                     .Text(NFTA_CHAIN_TABLE, table)
                     .Text(NFTA_CHAIN_NAME, kChain)
                     .Nest(NFTA_CHAIN_HOOK,
                           Attributes()
                               .Number(NFTA_HOOK_HOOKNUM, NF_INET_PRE_ROUTING)
                               .Number(NFTA_HOOK_PRIORITY, static_cast<uint32_t>(kPriority)))
                     .Number(NFTA_CHAIN_POLICY, NF_ACCEPT)
                     .Text(NFTA_CHAIN_TYPE, "filter"));
    for (const Attributes& rule : RulesOf(family, bans)) {
      batch.Tables(NFT_MSG_NEWRULE, family, NLM_F_CREATE | NLM_F_APPEND,
                   Attributes()
                       .Text(NFTA_RULE_TABLE, table)
                       .Text(NFTA_RULE_CHAIN, kChain)
                       .Nest(NFTA_RULE_EXPRESSIONS, rule));
    }
  }
  return batch.End();
}

std::vector<uint8_t> BuildFragmentChainQuery(const std::string& table, uint8_t family) {
  const Attributes which = Attributes().Text(NFTA_CHAIN_TABLE, table).Text(NFTA_CHAIN_NAME, kChain);
  nlmsghdr header{};
  header.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
  header.nlmsg_flags = NLM_F_REQUEST;
  header.nlmsg_len = static_cast<uint32_t>(NLMSG_HDRLEN + sizeof(nfgenmsg) + which.octets().size());
  nfgenmsg about{};
  about.nfgen_family = family;
  Octets request;
  AppendOctets(&request, &header, sizeof(header));
  AppendOctets(&request, &about, sizeof(about));
  AppendOctets(&request, which.octets().data(), which.octets().size());
  return request;
}

}  // namespace latchkey::broker
