#include "policy/request.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "policy/decide.h"

namespace latchkey::policy {
namespace {

SocketAddress S(const char* text, uint16_t port) { return {Address::Parse(text).value(), port}; }

const Flow kOut{Direction::kOut, kProtocolTcp, S("10.9.0.2", 0), S("10.9.0.1", 80)};
const std::vector<SpdEntry> kNoSpd;
constexpr char kWish[] =
    "[[rule]]\naction = \"protect\"\npeer = \"db\"\n[peer.db]\nid = [\"db.example\"]\n";

std::shared_ptr<const Policy> PolicyFrom(const std::string& rest) {
  auto parsed = Parse("latchkey = 1\napplication = \"app\"\n" + rest, "app.toml");
  REQUIRE(parsed);
  return std::make_shared<const Policy>(std::move(*parsed));
}

std::string ErrorOf(const std::string& text) {
  auto parsed = ParseRequest(text, PolicyFrom(""));
  if (parsed) return "";
  std::string all;
  for (const ParseError& error : parsed.error()) all += error.ToString() + "\n";
  return all;
}

// A request of a user with `own` grants, under a session's policy that brings `grants`.
Verdict DecideWish(const std::string& wish, const std::string& session, Grants own = {},
                   Grants grants = {}, const SystemPolicy& file = {}, const Flow& flow = kOut,
                   bool same_host = false) {
  static std::vector<Policy> kept;  // verdicts point into them
  kept.reserve(100'000);
  auto parsed = ParseRequest(wish, PolicyFrom(session));
  REQUIRE(parsed);
  kept.push_back(std::move(*parsed));
  return Decide({file, kNoSpd}, kept.back(), {1000, grants, own}, flow, same_host);
}

Grants Of(Grant grant) {
  Grants grants;
  grants.Add(grant);
  return grants;
}

SystemPolicy Asks(Action action) {
  SystemPolicy file;
  file.rules.emplace_back();
  file.rules.back().action = action;
  return file;
}

TEST_CASE("A request is one rule, with what it names") {
  const auto floor = PolicyFrom("");
  const auto parsed = ParseRequest(kWish, floor);
  REQUIRE(parsed);
  REQUIRE(parsed->rules.size() == 1);
  CHECK(parsed->rules[0].name == "request");
  CHECK(parsed->rules[0].peer.ids == std::vector<std::string>{"db.example"});
  CHECK(parsed->application == "app");
  CHECK(parsed->otherwise == Action::kDiscard);
  CHECK(parsed->floor == floor);
  CHECK(parsed->request == kWish);
  const auto named = ParseRequest("[[rule]]\nname = \"x\"\naction = \"protect\"\n", floor);
  REQUIRE(named);
  CHECK(named->rules[0].name == "x");
}

TEST_CASE("What is no request is refused, with its place") {
  CHECK(ErrorOf("").find("rule") != std::string::npos);
  CHECK(ErrorOf("x").starts_with("request:1:"));
  CHECK(ErrorOf("[[rule]]\n").find("action") != std::string::npos);
  CHECK(ErrorOf("rule = 1\n") != "");
  CHECK(ErrorOf("rule = [1]\n") != "");
  CHECK(ErrorOf("rule = []\n") != "");
  CHECK(ErrorOf("[rule]\naction = \"protect\"\n") != "");
  CHECK(ErrorOf("latchkey = 1\n" + std::string(kWish)).starts_with("request:1:1: "));
  CHECK(ErrorOf(std::string(kWish) + "[default]\naction = \"discard\"\n") != "");
  CHECK(ErrorOf(std::string(kWish) + "[[rule]]\naction = \"bypass\"\n").find("expected one") !=
        std::string::npos);
  for (const char* line : {"remote = [\"10.0.0.0/8\"]", "local = [\"10.0.0.0/8\"]",
                           "remote_port = [80]", "local_port = [80]", "protocol = \"tcp\""}) {
    CAPTURE(line);
    const std::string error = ErrorOf("[[rule]]\naction = \"protect\"\n" + std::string(line));
    CHECK(error.starts_with("request:3:"));
    CHECK(error.find("which flows") != std::string::npos);
  }
  CHECK(ErrorOf(std::string(kMaxRequest + 1, ' ')).find("2048 octets") != std::string::npos);
}

TEST_CASE("Every part of a request, and every octet of it changed, is refused or one rule") {
  std::mt19937 dice(5660);
  const std::string whole = kWish;
  const auto floor = PolicyFrom("");
  for (size_t i = 0; i <= whole.size(); ++i) {
    std::string text = whole.substr(0, i);
    auto parsed = ParseRequest(text, floor);
    CHECK((!parsed || parsed->rules.size() == 1));
    for (int round = 0; i < whole.size() && round < 4; ++round) {
      text = whole;
      text[i] = static_cast<char>(dice());
      parsed = ParseRequest(text, floor);
      CHECK((!parsed || parsed->rules.size() == 1));
    }
  }
}

TEST_CASE("Where nothing else speaks of the flow, a request is held to the system alone") {
  CHECK(DecideWish(kWish, "").outcome == Outcome::kProtect);
  CHECK(DecideWish(kWish, "").rule->name == "request");
  CHECK_FALSE(DecideWish(kWish, "").implicit);
  const std::string bypass = "[[rule]]\naction = \"bypass\"\n";
  CHECK(DecideWish(bypass, "").outcome == Outcome::kBypass);
  const SystemPolicy protects = Asks(Action::kProtect);
  CHECK(DecideWish(bypass, "", {}, {}, protects).reason == Reason::kUnprivilegedBypass);
  CHECK(DecideWish(bypass, "", Of(Grant::kBypass), {}, protects).outcome == Outcome::kClear);
  CHECK(DecideWish(kWish, "", {}, {}, Asks(Action::kDiscard)).reason == Reason::kPolicyDiscard);
}

TEST_CASE("What a signature grants its policy is not the program's to use") {
  const std::string bypass = "[[rule]]\naction = \"bypass\"\n";
  CHECK(DecideWish(bypass, "", {}, Grants::All(), Asks(Action::kProtect)).reason ==
        Reason::kUnprivilegedBypass);
}

TEST_CASE("A request adds to the application's policy, and takes nothing away") {
  const std::string strong =
      "[protection.strong]\nencryption = [\"aes-gcm-16\"]\nmin_key_bits = 256\n"
      "mode = \"transport\"\nreplay = \"required\"\npin = \"spi\"\n"
      "[peer.any]\nid = [\"*.example\"]\n"
      "[[rule]]\naction = \"protect\"\nprotection = \"strong\"\npeer = \"any\"\n";
  SECTION("both peers count, and the stronger of each part") {
    const Verdict verdict = DecideWish(kWish, strong);
    REQUIRE(verdict.outcome == Outcome::kProtect);
    const Protection good{SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
    CHECK(Judge(verdict.demand, {"db.example", "me", "pubkey"}, good) == Reason::kNone);
    CHECK(Judge(verdict.demand, {"web.example", "me", "pubkey"}, good) == Reason::kPeerMismatch);
    CHECK(Judge(verdict.demand, {"db.other", "me", "pubkey"}, good) == Reason::kPeerMismatch);
    Protection weak = good;
    weak.key_bits = 128;
    CHECK(Judge(verdict.demand, {"db.example", "me", "pubkey"}, weak) == Reason::kWeakProtection);
    weak = good;
    weak.replay = false;
    CHECK(Judge(verdict.demand, {"db.example", "me", "pubkey"}, weak) == Reason::kWeakProtection);
    CHECK(verdict.demand.pin == Pin::kSpi);
  }
  SECTION("what contradicts it is refused, whatever the user is granted") {
    const Grants all = Grants::All();
    CHECK(DecideWish("[[rule]]\naction = \"bypass\"\n", strong, all, all).reason ==
          Reason::kUnprivilegedBypass);
    CHECK(DecideWish("[[rule]]\naction = \"protect\"\nprotection = \"w\"\n[protection.w]\n"
                     "encryption = [\"chacha20-poly1305\"]\n",
                     strong, all, all)
              .reason == Reason::kUnprivilegedWeaken);
    CHECK(DecideWish("[[rule]]\naction = \"protect\"\nprotection = \"w\"\n[protection.w]\n"
                     "mode = \"tunnel\"\n",
                     strong, all, all)
              .reason == Reason::kUnprivilegedWeaken);
    CHECK(DecideWish(kWish, "[[rule]]\naction = \"discard\"\n", all, all).reason ==
          Reason::kPolicyDiscard);
    CHECK(DecideWish(kWish, "[default]\naction = \"discard\"\n", all, all).reason ==
          Reason::kPolicyDiscard);
  }
  SECTION("optional protection only where both are content with it") {
    const std::string optional = "[[rule]]\naction = \"protect-or-bypass\"\n";
    CHECK_FALSE(DecideWish(optional, strong).permit);
    CHECK(DecideWish(optional, strong).outcome == Outcome::kProtect);
    CHECK_FALSE(DecideWish(kWish, optional).permit);
    CHECK(DecideWish(optional, optional).permit);
    CHECK(DecideWish("[[rule]]\naction = \"bypass\"\n", optional).reason ==
          Reason::kUnprivilegedBypass);
  }
  SECTION("protection where the policy asks for none") {
    CHECK(DecideWish(kWish, "[[rule]]\naction = \"bypass\"\n").outcome == Outcome::kProtect);
  }
}

TEST_CASE("A direction that the request does not speak of is refused") {
  const std::string in = "[[rule]]\ndirection = \"in\"\naction = \"protect\"\n";
  CHECK(DecideWish(in, "").reason == Reason::kPolicyDiscard);
}

TEST_CASE("Within the host a request changes nothing") {
  CHECK(DecideWish(kWish, "", {}, {}, {}, kOut, true).outcome == Outcome::kLocal);
}

// A request never gets what its floor refuses, nor less than the floor demands.
TEST_CASE("Random requests under random policies are never less than the policy") {
  std::mt19937 dice(1);
  const auto pick = [&dice](auto... each) {
    const char* all[] = {each...};
    return std::string(all[dice() % std::size(all)]);
  };
  const auto rule = [&] {
    const std::string action = pick("protect", "protect-or-bypass", "bypass", "discard");
    std::string text = "[[rule]]\naction = \"" + action + "\"\n";
    if (!action.starts_with("protect")) return text;
    return text + "protection = \"p\"\npeer = \"q\"\n[peer.q]\nid = [\"" +
           pick("db.example", "*.example", "web.example") + "\"]\n[protection.p]\nencryption = [" +
           pick("\"aes-gcm-16\"", "\"chacha20-poly1305\"", "\"aes-gcm-16\", \"aes-gcm-12\"") +
           "]\nmin_key_bits = " + pick("128", "256") + "\nreplay = \"" + pick("any", "required") +
           "\"\nmode = \"" + pick("transport", "tunnel") + "\"\n";
  };
  for (int round = 0; round < 2000; ++round) {
    const std::string session = dice() % 4 == 0 ? "" : rule();
    const std::string wish = rule();
    const Grants own = Grants::Of(static_cast<uint8_t>(dice()));
    const Grants grants = Grants::Of(static_cast<uint8_t>(dice()));
    SystemPolicy file;
    if (dice() % 2 == 0) file = Asks(dice() % 2 == 0 ? Action::kProtect : Action::kDiscard);
    CAPTURE(session, wish);
    const auto policy = PolicyFrom(session);
    const Verdict floor = Decide({file, kNoSpd}, *policy, {1000, grants, own}, kOut, false);
    const Verdict got = DecideWish(wish, session, own, grants, file);
    if (floor.outcome == Outcome::kRefuse) CHECK(got.outcome == Outcome::kRefuse);
    if (floor.outcome != Outcome::kProtect || floor.implicit) continue;
    CHECK((got.outcome == Outcome::kProtect || got.outcome == Outcome::kRefuse));
    if (got.outcome != Outcome::kProtect) continue;
    CHECK((floor.permit || !got.permit));
    for (const char* id : {"db.example", "web.example", "other.example", "elsewhere"}) {
      for (const char* cipher : {"aes-gcm-16", "aes-gcm-12", "chacha20-poly1305"}) {
        for (const uint16_t bits : {uint16_t{128}, uint16_t{256}}) {
          for (const Mode mode : {Mode::kTransport, Mode::kTunnel}) {
            for (const bool replay : {false, true}) {
              const Identity who{id, "me", "pubkey"};
              const Protection sa{SaProtocol::kEsp, mode, cipher, "", bits, replay, false};
              if (Judge(got.demand, who, sa) == Reason::kNone) {
                CHECK(Judge(floor.demand, who, sa) == Reason::kNone);
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace latchkey::policy
