// The rule that a flow falls under, as `latchkey why` names it.
#include "tools/latchkeyd/server/cause.h"

#include <catch2/catch.hpp>

#include "policy/parse.h"
#include "policy/request.h"
#include "policy/system_parse.h"

namespace latchkey::broker {
namespace {

struct Fixture {
  std::shared_ptr<const policy::Policy> policy;
  policy::SystemPolicy file;
  std::vector<SpdEntry> spd;
  CauseFiles files{"/p.toml", "/s.toml"};
  Flow flow{Direction::kOut,
            kProtocolTcp,
            {*Address::Parse("10.9.0.1"), 0},
            {*Address::Parse("10.9.0.2"), 80}};

  void Say(const std::string& rules) {
    auto parsed = policy::Parse("latchkey = 1\napplication = \"a\"\n" + rules, "p");
    REQUIRE(parsed);
    policy = std::make_shared<const policy::Policy>(std::move(*parsed));
  }
  std::string Go(const policy::Rule* rule = nullptr) const {
    return CauseOf(*policy, files, {file, spd}, flow, rule);
  }
};

TEST_CASE_METHOD(Fixture, "The rule with its line, or the default") {
  Say("[[rule]]\nname = \"ssh\"\nremote_port = [22]\naction = \"bypass\"\n"
      "[[rule]]\nname = \"web\"\nlocal = [\"10.9.0.1\"]\naction = \"protect\"\n");
  CHECK(Go() == "/p.toml:7: rule \"web\"");
  flow.remote.port = 22;
  CHECK(Go() == "/p.toml:3: rule \"ssh\"");
  CHECK(Go(&policy->rules[1]) == "/p.toml:7: rule \"web\"");
  flow.remote = {};
  CHECK(Go().empty());
  flow.remote = {*Address::Parse("10.9.0.3"), 80};
  flow.local = {};
  CHECK(Go() == "/p.toml: default");
}

TEST_CASE_METHOD(Fixture, "What the system asks, where it decides") {
  Say("");
  CHECK(Go() == "/p.toml: default");
  file =
      *policy::ParseSystem("latchkey = 1\n[[rule]]\nname = \"floor\"\naction = \"protect\"\n", "s");
  CHECK(Go() == "/p.toml: default, /s.toml:2: rule \"floor\"");
  files.policy.clear();
  CHECK(Go() == "/s.toml:2: rule \"floor\"");
  SpdEntry entry;
  entry.dir = 1;
  entry.block = true;
  entry.index = 17;
  spd = {entry};
  CHECK(Go() == "/s.toml:2: rule \"floor\", SPD entry 17");
  file = {};
  CHECK(Go() == "SPD entry 17");
  files.policy = "/p.toml";
  Say("[default]\naction = \"discard\"\n");
  CHECK(Go() == "/p.toml: default");
}

TEST_CASE_METHOD(Fixture, "A program's own request, and what it is held to") {
  Say("[[rule]]\nname = \"web\"\naction = \"protect\"\n");
  auto request = policy::ParseRequest("[[rule]]\naction = \"protect\"\n", policy);
  REQUIRE(request);
  policy = std::make_shared<const policy::Policy>(std::move(*request));
  CHECK(Go() == "request:1: rule \"request\", /p.toml:3: rule \"web\"");
}

}  // namespace
}  // namespace latchkey::broker
