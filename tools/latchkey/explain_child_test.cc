// The child that would be negotiated, and how the answer says so.
#include "tools/latchkey/explain_child.h"

#include <catch2/catch.hpp>

#include "tools/latchkey/explain_text.h"

namespace latchkey::tool {
namespace {

namespace vici = broker::vici;

struct Fixture {
  CharonLists charon;
  policy::Rule rule;
  Explanation answer;

  Fixture() {
    vici::ConnConfig conn;
    conn.name = "to-bob";
    conn.local_addresses = {"%any"};
    conn.remote_addresses = {"10.9.0.2"};
    conn.local = {{"pubkey", "alice"}};
    conn.remote = {{"pubkey", "bob"}};
    conn.children = {{"db",
                      Mode::kTransport,
                      {*vici::ReadSelector("dynamic")},
                      {*vici::ReadSelector("dynamic[tcp/5432]")}}};
    charon.conns = {conn};
    rule.name = "database";
    rule.action = policy::Action::kProtect;
    rule.peer.ids = {"bob"};
    answer.flow.local.address = *Address::Parse("10.9.0.1");
    answer.flow.remote = {*Address::Parse("10.9.0.2"), 5432};
  }
  Result<vici::Choice> Go() {
    answer.verdict.outcome = policy::Outcome::kProtect;
    answer.verdict.rule = &rule;
    answer.verdict.demand = policy::DemandOf(rule);
    return ChildFor(charon, answer.flow, answer.verdict);
  }
  std::string Text() {
    const Result<vici::Choice> choice = Go();
    return choice ? choice->ike + "/" + choice->child : choice.error().ToString();
  }
};

TEST_CASE_METHOD(Fixture, "A child that covers the flow, for the rule's peer, in the rule's mode") {
  CHECK(Text() == "to-bob/db");
  rule.child = "db";
  CHECK(Text() == "to-bob/db");
  rule.child = "other";
  CHECK(Text().ends_with(R"(charon has no child "other" (no-child))"));
  rule.child.clear();
  rule.peer.ids = {"carol"};
  CHECK(Text().ends_with("is for a peer that the rule does not allow (no-child)"));
  rule.peer.ids = {"bob"};
  rule.protection.mode = Mode::kTunnel;
  CHECK(Text().ends_with("is of another mode (no-child)"));
}

TEST_CASE_METHOD(Fixture, "A connection without the peer's address needs an IKE_SA that is up") {
  charon.conns[0].remote_addresses = {"%any"};
  CHECK(Text().ends_with("has no address to initiate to that is the flow's (no-child)"));
  vici::IkeSa up;
  up.name = "to-bob";
  up.remote.address = *Address::Parse("10.9.0.2");
  charon.sas = {up};
  CHECK_FALSE(Go());
  charon.sas[0].state = "ESTABLISHED";
  CHECK(Text() == "to-bob/db");
  charon.sas.push_back(charon.sas[0]);
  charon.sas[1].remote.address = *Address::Parse("10.9.0.3");
  CHECK_FALSE(Go());
}

TEST_CASE_METHOD(Fixture, "What cannot be copied is no child for a flow of its own") {
  rule.protection.unique = true;
  CHECK(Text() == "to-bob/db");
  charon.conns[0].remote[0].bound = "groups";
  CHECK(Text().ends_with("(no-child)"));
}

TEST_CASE_METHOD(Fixture, "It is told as what will be done, and passes") {
  Source source;
  source.live = true;
  source.policy = "p.toml";
  answer.child = *Go();
  CHECK(Passes(answer));
  CHECK(ExplainText(answer, source)
            .ends_with("SA:       none yet\ndecision: PROTECT: an SA will be negotiated (child "
                       "\"db\" of connection \"to-bob\")\n"));
  CHECK(ExplainJson(answer, source)["child"]["name"] == "db");
  answer.verdict.implicit = true;
  CHECK(ExplainText(answer, source)
            .ends_with("PROTECT: implicitly, because the system asks; an SA will be negotiated "
                       "(child \"db\" of connection \"to-bob\")\n"));

  answer.child.reset();
  answer.reason = Reason::kNoChild;
  CHECK_FALSE(Passes(answer));
  CHECK(ExplainText(answer, source).find("to change: a child in swanctl.conf") !=
        std::string::npos);
}

}  // namespace
}  // namespace latchkey::tool
