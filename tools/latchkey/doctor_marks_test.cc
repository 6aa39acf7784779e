#include "tools/latchkey/doctor_marks.h"

#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <utility>

namespace latchkey::tool {
namespace {

constexpr uint32_t kMask = 0xffff0000;

std::vector<uint8_t> Message(uint8_t family, uint32_t flags,
                             const std::vector<std::pair<uint16_t, uint32_t>>& attributes) {
  nlmsghdr header{};
  fib_rule_hdr body{};
  body.family = family;
  body.flags = flags;
  std::vector<uint8_t> octets(sizeof(header) + sizeof(body));
  std::memcpy(octets.data() + sizeof(header), &body, sizeof(body));
  for (const auto& [type, value] : attributes) {
    const rtattr attribute{RTA_LENGTH(sizeof(value)), type};
    const size_t at = octets.size();
    octets.resize(at + attribute.rta_len);
    std::memcpy(octets.data() + at, &attribute, sizeof(attribute));
    std::memcpy(octets.data() + at + RTA_LENGTH(0), &value, sizeof(value));
  }
  header.nlmsg_type = RTM_NEWRULE;
  header.nlmsg_len = static_cast<uint32_t>(octets.size());
  std::memcpy(octets.data(), &header, sizeof(header));
  return octets;
}

TEST_CASE("A rule is read from what the kernel says of it") {
  CHECK(ParseMarkRule(
            Message(AF_INET, 0, {{FRA_PRIORITY, 100}, {FRA_FWMARK, 0x51}, {FRA_FWMASK, 0xff}})) ==
        MarkRule{false, false, 100, 0x51, 0xff});
  CHECK(ParseMarkRule(Message(AF_INET6, FIB_RULE_INVERT, {{FRA_FWMARK, 7}})) ==
        MarkRule{true, true, 0, 7, 0xffffffff});
  // A mark of 0 under a mask is looked for too.
  CHECK(ParseMarkRule(Message(AF_INET, 0, {{FRA_FWMASK, 0x80000000}})) ==
        MarkRule{false, false, 0, 0, 0x80000000});
}

TEST_CASE("Rules without a mark, and what is no rule, are passed over") {
  CHECK_FALSE(ParseMarkRule(Message(AF_INET, 0, {{FRA_PRIORITY, 32766}})));
  std::vector<uint8_t> octets = Message(AF_INET, 0, {{FRA_FWMARK, 1}});
  for (size_t length = 0; length < octets.size(); ++length) {
    CHECK_FALSE(ParseMarkRule(std::span(octets).first(length)));
  }
  const uint16_t other = RTM_NEWROUTE;
  std::memcpy(octets.data() + offsetof(nlmsghdr, nlmsg_type), &other, sizeof(other));
  CHECK_FALSE(ParseMarkRule(octets));
  // An attribute that says it is longer than the message, or shorter than itself.
  for (const uint16_t length : {uint16_t{200}, uint16_t{0}}) {
    octets = Message(AF_INET, 0, {{FRA_FWMARK, 1}});
    std::memcpy(octets.data() + sizeof(nlmsghdr) + sizeof(fib_rule_hdr), &length, sizeof(length));
    CHECK_FALSE(ParseMarkRule(octets));
  }
}

TEST_CASE("Bits of ours in a rule are a collision; a whole mark is a warning") {
  const auto text = [](const MarkRule& rule) { return FindingsText(MarkFindings({rule}, kMask)); };
  const std::string good = "ok    no routing rule uses the bits of mark_mask (0xffff0000)\n";
  CHECK(FindingsText(MarkFindings({}, kMask)) == good);
  CHECK(text({false, false, 100, 0x51, 0xffff}) == good);
  CHECK(text({false, false, 100, 0x80051, 0xffffffff}) ==
        "BAD   ip rule 100: fwmark 0x80051 uses bits of Latchkey's mark_mask (0xffff0000): set "
        "mark_mask in system.toml to bits that no rule uses\n");
  CHECK(text({true, false, 7, 0, 0x80000000})
            .starts_with("BAD   ip -6 rule 7: fwmark 0x0/0x80000000 uses bits"));
  CHECK(text({false, true, 7, 0x10000, 0x10000})
            .starts_with("BAD   ip rule 7: not fwmark 0x10000/0x10000 uses bits"));
  CHECK(text({false, false, 100, 0x51, 0xffffffff})
            .starts_with("note  ip rule 100: fwmark 0x51 compares the whole mark: "));
  CHECK(text({false, true, 100, 0xca6c, 0xffffffff}) == good);
  // Elsewhere by system.toml.
  CHECK_FALSE(AnyBad(MarkFindings({{false, false, 1, 0x10000, 0x10000}}, 0xff)));
}

TEST_CASE("The kernel's own rules can be read without privilege") {
  const auto rules = ReadMarkRules();
  INFO((rules ? std::string() : rules.error()));
  CHECK(rules);
}

}  // namespace
}  // namespace latchkey::tool
