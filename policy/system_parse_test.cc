// /etc/latchkey/system.toml: what it says, and what is wrong with one.
#include "policy/system_parse.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace latchkey::policy {
namespace {

constexpr char kKey[] = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

std::vector<std::string> Errors(const std::string& text) {
  const auto parsed = ParseSystem(text, "s");
  std::vector<std::string> errors;
  if (parsed) return errors;
  for (const ParseError& error : parsed.error()) errors.push_back(error.ToString());
  return errors;
}

TEST_CASE("All of it at once") {
  const auto parsed = ParseSystem(R"(
latchkey  = 1
mark_mask = 0x00ff0000
clear_fragments = "dropped"
suites    = [["aes-gcm-16:256", "chacha20-poly1305"], ["aes-gcm-16:128"]]
[default]
on_break = "reset"
[protection.floor]
encryption = ["aes-gcm-16"]
[[rule]]
direction = "out"
remote = ["10.0.0.0/8"]
action = "protect"
protection = "floor"
[[rule]]
remote_port = [23]
action = "discard"
[[signer]]
key = ")" + std::string(kKey) + R"("
grants = ["bypass", "override-discard"]
applications = ["orders-api"]
[[grant]]
user = "backup"
grants = ["weaken"]
[[grant]]
group = "ops"
grants = ["bypass"]
[[grant]]
user = "*"
grants = ["weaken"]
)",
                                  "s");
  REQUIRE(parsed);
  CHECK(parsed->mark_mask == 0x00ff0000);
  CHECK_FALSE(parsed->suites.empty());
  REQUIRE(parsed->rules.size() == 2);
  CHECK(parsed->rules[0].action == Action::kProtect);
  CHECK(AcceptedBy(parsed->rules[0]).count() == 3);
  CHECK(parsed->rules[0].line == 10);
  CHECK(parsed->fragments_dropped);
  CHECK_FALSE(parsed->rules[0].protection.mode);
  CHECK(parsed->rules[1].action == Action::kDiscard);
  REQUIRE(parsed->signers.size() == 1);
  CHECK(parsed->signers[0].key == kKey);
  CHECK(parsed->signers[0].grants.Has(Grant::kOverrideDiscard));
  CHECK_FALSE(parsed->signers[0].grants.Has(Grant::kWeaken));
  CHECK(parsed->signers[0].applications == std::vector<std::string>{"orders-api"});
  REQUIRE(parsed->grants.size() == 3);
  CHECK(parsed->grants[0].whom == GrantTo::Whom::kUser);
  CHECK(parsed->grants[1].whom == GrantTo::Whom::kGroup);
  CHECK(parsed->grants[2].whom == GrantTo::Whom::kEverybody);
  CHECK(parsed->grants[0].grants.Has(Grant::kWeaken));
}

TEST_CASE("The least there can be, and what holds then") {
  const auto parsed = ParseSystem("latchkey = 1", "s");
  REQUIRE(parsed);
  CHECK(parsed->mark_mask == 0xffff0000);
  CHECK(parsed->suites.empty());
  CHECK(parsed->rules.empty());
  CHECK(parsed->signers.empty());
  CHECK(parsed->grants.empty());
}

TEST_CASE("What is wrong, and where") {
  struct Row {
    std::string text;
    std::vector<std::string> errors;
  };
  const std::string head = "latchkey = 1\n";
  const Row rows[] = {
      {"", {"s:1:1: no key \"latchkey\" in the file: expected latchkey = 1"}},
      {head + "mark_mask = 0",
       {"s:2:13: mark_mask is 0: expected an integer from 1 to 4294967295"}},
      {head + "mark_mask = 5", {"s:2:13: mark_mask is 5: expected bits side by side"}},
      {head + "suites = [\"aes-gcm-16\"]",
       {"s:2:11: suites holds \"aes-gcm-16\": expected lists of suites, strongest first, like "
        "[[\"aes-gcm-16:256\"], [\"aes-gcm-16:128\"]]"}},
      {head + "suites = [[\"des\", 3]]",
       {"s:2:12: suites holds \"des\": expected a suite, like \"aes-gcm-16:256\"",
        "s:2:19: suites holds 3: expected a string"}},
      {head + "[default]\non_break = \"wait\"",
       {"s:3:12: on_break is \"wait\": expected \"reset\" or \"suspend\""}},
      {head + "clear_fragments = \"pass\"",
       {"s:2:19: clear_fragments is \"pass\": expected \"ban\" or \"dropped\""}},
      {head + "[[rule]]\naction = \"protect-or-bypass\"",
       {"s:3:10: action is \"protect-or-bypass\": expected \"protect\", \"bypass\" or "
        "\"discard\""}},
      {head + "[[rule]]\naction = \"protect\"\nreqid = 7",
       {"s:4:1: unknown key \"reqid\" in [[rule]]: expected one of \"name\", \"direction\", "
        "\"protocol\", \"remote\", \"remote_port\", \"local\", \"local_port\", \"action\", "
        "\"protection\", \"peer\""}},
      {head + "[[signer]]\nkey = \"RW\"\ngrants = [\"all\"]",
       {"s:3:7: key is \"RW\": expected a minisign public key, 56 characters",
        "s:4:11: grants holds \"all\": expected \"bypass\", \"weaken\" or \"override-discard\""}},
      {head + "[[rule]]",
       {"s:2:1: no key \"action\" in [[rule]]: expected \"protect\", \"bypass\" or "
        "\"discard\""}},
      {head + "[[signer]]",
       {"s:2:1: no key \"key\" in [[signer]]: expected a minisign public key, 56 characters",
        "s:2:1: no key \"grants\" in [[signer]]: expected a list of \"bypass\", \"weaken\" or "
        "\"override-discard\""}},
      {head + "[[grant]]\ngrants = [\"bypass\"]",
       {"s:2:1: [[grant]] has neither user nor group: expected one"}},
      {head + "[[grant]]\nuser = \"a\"\ngroup = \"b\"\ngrants = [\"bypass\"]",
       {"s:2:1: [[grant]] has both user and group: expected one"}},
      {head + "[[grant]]\nuser = \"\"\ngrants = [\"bypass\"]",
       {"s:3:8: user is \"\": expected a name or \"*\""}},
      {head + "grant = 3", {"s:2:9: grant is 3: expected tables, [[grant]]"}},
  };
  for (const Row& row : rows) {
    INFO(row.text);
    CHECK(Errors(row.text) == row.errors);
  }
}

}  // namespace
}  // namespace latchkey::policy
