// Policies that are wrong: every class of error, where it stands and what it says.
#include "policy/parse_error_fixture.h"

namespace latchkey::policy {
namespace {

TEST_CASE("The head: version, application, programs") {
  Check({
      {"",
       {"p:1:1: no key \"latchkey\" in the file: expected latchkey = 1",
        "p:1:1: no key \"application\" in the file: expected its name, application = \"NAME\""}},
      {"latchkey = 2\napplication = \"a\"", {"p:1:12: latchkey is 2: expected 1"}},
      {"latchkey = \"1\"\napplication = \"a\"", {"p:1:12: latchkey is \"1\": expected 1"}},
      {"latchkey = 1\napplication = \"\"",
       {"p:2:15: application is \"\": expected 1 to 63 octets, none of them a control character"}},
      {"latchkey = 1\napplication = \"" + std::string(64, 'n') + "\"",
       {"p:2:15: application is \"" + std::string(64, 'n') +
        "\": expected 1 to 63 octets, none of them a control character"}},
      {"latchkey = 1\napplication = 7", {"p:2:15: application is 7: expected a string"}},
      {kHead + "program = \"/bin/x\"",
       {"p:4:11: program is \"/bin/x\": expected a list, [\"/bin/x\"]"}},
      {kHead + "program = [\"/bin/x\", \"curl\"]",
       {"p:4:22: program holds \"curl\": expected an absolute path of at most 255 octets"}},
      {kHead + "program = [\"/" + std::string(255, 'x') + "\"]",
       {"p:4:12: program holds \"/" + std::string(79, 'x') +
        "…\": expected an absolute path of at most 255 octets"}},
      {kHead + "program = [\"/" + std::string(254, 'x') + "\"]", {}},
      {kHead + "program = [1]", {"p:4:12: program holds 1: expected a string"}},
      {kHead + "program = []", {"p:4:11: program has 0 elements: expected 1 to 64"}},
  });
}

TEST_CASE("Keys that are unknown") {
  Check({
      {kHead + "aplication = 1",
       {"p:4:1: unknown key \"aplication\" in the file: did you mean \"application\"?"}},
      {kHead + "zzz = 1",
       {"p:4:1: unknown key \"zzz\" in the file: expected one of \"latchkey\", \"application\", "
        "\"program\", \"users\", \"serial\", \"not_after\", \"protection\", \"peer\", \"rule\", "
        "\"default\", \"process\""}},
      {kRule + "remot = [\"10.0.0.1\"]",
       {"p:6:1: unknown key \"remot\" in [[rule]]: did you mean \"remote\"?"}},
      {kRule + "romote_prot = [1]",
       {"p:6:1: unknown key \"romote_prot\" in [[rule]]: expected one of \"name\", \"direction\", "
        "\"protocol\", \"remote\", \"remote_port\", \"local\", \"local_port\", \"action\", "
        "\"protection\", \"peer\", \"child\", \"reqid\", \"on_break\", \"acquire_timeout\""}},
      {kProtection + "ens = \"any\"",
       {"p:5:1: unknown key \"ens\" in [protection.x]: did you mean \"esn\"?"}},
      {kPeer + "ids = [\"b\"]", {"p:6:1: unknown key \"ids\" in [peer.p]: did you mean \"id\"?"}},
      {kHead + "[default]\nActions = \"discard\"",
       {"p:5:1: unknown key \"Actions\" in [default]: did you mean \"action\"?"}},
  });
}

TEST_CASE("The process") {
  const std::string process = kHead + "[process]\n";  // then line 5
  std::string paths;
  for (int i = 0; i < 15; ++i) paths += "\"/bin/x\", ";
  Check({
      {process + "deny_io_uring = true", {}},
      {process + "deny_io_uring = 1", {"p:5:17: deny_io_uring is 1: expected true or false"}},
      {process + "deny_io_uring = \"yes\"",
       {"p:5:17: deny_io_uring is \"yes\": expected true or false"}},
      {process + "deny_iouring = true",
       {"p:5:1: unknown key \"deny_iouring\" in [process]: did you mean \"deny_io_uring\"?"}},
      {process + "drop_preload = [\"/bin/x\", \"x\"]",
       {"p:5:27: drop_preload holds \"x\": expected an absolute path of at most 255 octets"}},
      {process + "drop_preload = \"/bin/x\"",
       {"p:5:16: drop_preload is \"/bin/x\": expected a list, [\"/bin/x\"]"}},
      {process + "drop_preload = []", {"p:5:16: drop_preload has 0 elements: expected 1 to 16"}},
      {process + "drop_preload = [" + paths + "\"/bin/x\"]", {}},
      {process + "drop_preload = [" + paths + "\"/bin/x\", \"/bin/x\"]",
       {"p:5:16: drop_preload has 17 elements: expected 1 to 16"}},
      {kHead + "process = true", {"p:4:11: process is true: expected a table"}},
  });
}

TEST_CASE("Words that are none") {
  Check({
      {kRule + "protocol = \"sctp\"",
       {"p:6:12: protocol is \"sctp\": expected \"tcp\", \"udp\" or \"any\""}},
      {kProtection + "protocol = \"udp\"",
       {"p:5:12: protocol is \"udp\": expected \"esp\" or \"ah\""}},
      {kProtection + "replay = \"yes\"",
       {"p:5:10: replay is \"yes\": expected \"required\" or \"any\""}},
      {kProtection + "esn = true", {"p:5:7: esn is true: expected a string"}},
      {kProtection + "pin = \"SPI\"",
       {"p:5:7: pin is \"SPI\": expected \"auto\", \"reqid\" or \"spi\""}},
      {kRule + "direction = \"both\"",
       {"p:6:13: direction is \"both\": expected \"out\" or \"in\""}},
      {kHead + "[[rule]]\naction = \"allow\"",
       {"p:5:10: action is \"allow\": expected \"protect\", \"protect-or-bypass\", \"bypass\" or "
        "\"discard\""}},
      {kHead + "[[rule]]\nname = \"r\"",
       {"p:4:1: no key \"action\" in [[rule]]: expected \"protect\", \"protect-or-bypass\", "
        "\"bypass\" or \"discard\""}},
      {kHead + "[default]\naction = \"bypass\"",
       {"p:5:10: action is \"bypass\": expected \"system\" or \"discard\""}},
  });
}

TEST_CASE("Users, serials and last days") {
  const std::string user = ": expected a user name or a number from 0 to 4294967294";
  Check({
      {kHead + "users = [\"alice\", 0, 4294967294]", {}},
      {kHead + "users = [\"\"]", {"p:4:10: users holds \"\"" + user}},
      {kHead + "users = [\"0x\"]", {"p:4:10: users holds \"0x\"" + user}},
      {kHead + "users = [-1]", {"p:4:10: users holds -1" + user}},
      {kHead + "users = [4294967295]", {"p:4:10: users holds 4294967295" + user}},
      {kHead + "users = [true]", {"p:4:10: users holds true" + user}},
      {kHead + "serial = 9223372036854775807\nnot_after = 2027-06-30", {}},
      {kHead + "serial = 0",
       {"p:4:10: serial is 0: expected an integer from 1 to 9223372036854775807"}},
      {kHead + "serial = \"7\"",
       {"p:4:10: serial is \"7\": expected an integer from 1 to 9223372036854775807"}},
      {kHead + "not_after = \"2027-06-30\"",
       {"p:4:13: not_after is \"2027-06-30\": expected a date, like 2030-12-31"}},
      {kHead + "not_after = 2027-06-30T00:00:00Z",
       {"p:4:13: not_after is 2027-06-30T00:00:00Z: expected a date, like 2030-12-31"}},
  });
  CHECK(Errors(kHead + "not_after = 2027-02-30").size() == 1);
}

TEST_CASE("AH has no cipher") {
  Check({
      {kProtection + "protocol = \"ah\"\nintegrity = [\"hmac-sha2-256\"]", {}},
      {kProtection + "protocol = \"ah\"\nencryption = [\"null\"]\nmin_key_bits = 0",
       {"p:6:14: encryption is about ciphers, and [protection.x] has protocol = \"ah\": expected "
        "only integrity",
        "p:7:16: min_key_bits is about ciphers, and [protection.x] has protocol = \"ah\": expected "
        "only integrity"}},
  });
}

TEST_CASE("Protections: suites and key lengths") {
  const std::string ciphers =
      ": expected one of aes-gcm-16, aes-gcm-12, aes-gcm-8, aes-ccm-16, aes-ccm-12, aes-ccm-8, "
      "chacha20-poly1305, aes-gmac, aes-cbc, aes-ctr, null";
  const std::string hashes =
      ": expected one of hmac-sha1, hmac-sha2-256, hmac-sha2-384, hmac-sha2-512, aes-xcbc, "
      "aes-cmac";
  Check({
      {kProtection + "encryption = [\"aes-cbc\", \"des3\"]",
       {"p:5:26: encryption holds \"des3\"" + ciphers}},
      {kProtection + "encryption = [\"hmac-sha1\"]",
       {"p:5:15: encryption holds \"hmac-sha1\"" + ciphers}},
      {kProtection + "encryption = \"aes-cbc\"",
       {"p:5:14: encryption is \"aes-cbc\": expected a list, [\"aes-cbc\"]"}},
      {kProtection + "integrity = [\"aes-cbc\", 3]",
       {"p:5:14: integrity holds \"aes-cbc\"" + hashes, "p:5:25: integrity holds 3" + hashes}},
      {kProtection + "min_key_bits = -1",
       {"p:5:16: min_key_bits is -1: expected an integer from 0 to 512"}},
      {kProtection + "min_key_bits = 513",
       {"p:5:16: min_key_bits is 513: expected an integer from 0 to 512"}},
      {kProtection + "min_key_bits = \"256\"",
       {"p:5:16: min_key_bits is \"256\": expected an integer from 0 to 512"}},
      {kProtection + "min_key_bits = 257",
       {"p:5:16: min_key_bits is 257: expected at most 256, no cipher has a longer key"}},
      {kProtection + "encryption = [\"aes-cbc\", \"null\"]",
       {"p:5:14: [protection.x] lists \"null\", whose keys have at most 0 bits, and min_key_bits "
        "is 128: expected at most 0"}},
      {kHead + "[protection]\nx = 1",
       {"p:5:5: protection.x is 1: expected a table, [protection.NAME]"}},
      {kHead + "protection = 1", {"p:4:14: protection is 1: expected a table"}},
  });
}

TEST_CASE("Peers: names and authentication") {
  const std::string star =
      ": expected \"*\" only as the whole leftmost label of a host name, like \"*.db.example\"";
  const std::string octets = ": expected 1 to 255 octets without a NUL";
  const std::string p = kHead + "[peer.p]\n";
  const std::string who = ": expected who it may be, id = [\"NAME\"]";
  Check({
      {p + "auth = [\"psk\"]", {"p:4:1: no key \"id\" in [peer.p]" + who}},
      {p + "id = \"alice\"", {"p:5:6: id is \"alice\": expected a list, [\"alice\"]"}},
      {p + "id = []", {"p:5:6: id has 0 elements: expected 1 to 64"}},
      {p + "id = [\"\", 3]",
       {"p:5:7: id holds \"\"" + octets, "p:5:11: id holds 3: expected a string"}},
      {p + "id = [\"*.\"]", {"p:5:7: id holds \"*.\"" + star}},
      {p + "id = [\"a*.example\"]", {"p:5:7: id holds \"a*.example\"" + star}},
      {p + "id = [\"ip:alice\"]",
       {"p:5:7: id holds \"ip:alice\": expected an IP address after \"ip:\""}},
      {kHead + "peer.p.auth = [\"psk\"]", {"p:4:6: no key \"id\" in [peer.p]" + who}},
      {kPeer + "auth = [\"psk\", \"none\"]",
       {"p:6:16: auth holds \"none\": expected \"pubkey\", \"psk\", \"eap\" or \"manual\""}},
      {kHead + "peer = [1]", {"p:4:8: peer is a list: expected a table"}},
  });
}

TEST_CASE("Tables that are none") {
  Check({
      {kHead + "rule = 1", {"p:4:8: rule is 1: expected tables, [[rule]]"}},
      {kHead + "rule = [1]", {"p:4:8: rule is a list: expected tables, [[rule]]"}},
      {kHead + "[rule]\naction = \"bypass\"",
       {"p:4:1: rule is a table: expected tables, [[rule]]"}},
      {kHead + "default = \"discard\"", {"p:4:11: default is \"discard\": expected a table"}},
  });
}

TEST_CASE("Syntax errors and duplicates come from the TOML parser, with their place") {
  const auto begins = [](const std::string& text, const std::string& place,
                         const std::string& word) {
    INFO(text);
    const std::vector<std::string> errors = Errors(text);
    REQUIRE(errors.size() == 1);
    INFO(errors[0]);
    CHECK(errors[0].starts_with(place));
    CHECK(errors[0].find(word) != std::string::npos);
  };
  begins(kHead + "latchkey = 1", "p:4:12: ", "redefine existing integer 'latchkey'");
  begins(kPeer + "id = [\"b\"]", "p:6:6: ", "redefine existing array 'id'");
  begins(kPeer + "[peer.p]", "p:6:1: ", "redefine existing table 'peer.p'");
  begins(kHead + "x = \n", "p:4:5: ", "expected value");
  begins(kHead + "x = \"y", "p:4:7: ", "end-of-file");
  begins(kHead + "x = \"\xff\"", "p:4:5: ", "invalid utf-8");
}

TEST_CASE(
    "Texts that fail an assertion of the TOML parser are errors, not the end of the process") {
  for (const char* text :
       {"[[[x]]]", "[[.x]]", "[ ]", "[[ ]]", "[=]", "[\n]", "[[[peer.x]\nrule]]"}) {
    INFO(text);
    CHECK(Errors(kHead + text).size() == 1);
  }
}

TEST_CASE("All errors of a file come in one run, in the order of their lines") {
  const std::vector<std::string> errors = Errors(
      "[[rule]]\naction = \"x\"\nreqid = 0\n[default]\naction = \"y\"\n[peer.p]\nauth = [\"z\"]\n"
      "[protection.x]\npin = \"w\"\nfoo = 1\n");
  const std::vector<std::string> places = {"p:1:1: no key \"latchkey\"",
                                           "p:1:1: no key \"application\"",
                                           "p:2:",
                                           "p:3:",
                                           "p:5:",
                                           "p:6:1",
                                           "p:7:9",
                                           "p:9:",
                                           "p:10:1"};
  REQUIRE(errors.size() == places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    INFO(errors[i]);
    CHECK(errors[i].starts_with(places[i]));
  }
}

TEST_CASE("What a terminal would act on is escaped") {
  Check({
      {kHead + R"(program = ["\u001b[31m\u0007\u007f\u0085\"\\é"])",
       {R"(p:4:12: program holds "\x1b[31m\x07\x7f\x85\"\\é": expected an absolute path of at most 255 octets)"}},
      {kHead + R"("\u001b[2J" = 1)",
       {R"(p:4:1: unknown key "\x1b[2J" in the file: expected one of "latchkey", "application", "program", "users", "serial", "not_after", "protection", "peer", "rule", "default", "process")"}},
      {kHead + R"([peer."a\nb"])",
       {R"(p:4:1: no key "id" in [peer.a\x0ab]: expected who it may be, id = ["NAME"])"}},
      {kHead + "[protection]\n" + R"("\u001b" = 1)",
       {R"(p:5:12: protection.\x1b is 1: expected a table, [protection.NAME])"}},
  });
  const std::vector<std::string> twice =
      Errors(kHead + R"("\u001b[2J" = 1)" + "\n" + R"("\u001b[2J" = 2)");
  REQUIRE(twice.size() == 1);
  CHECK(std::ranges::none_of(twice[0], [](char c) { return c == '\x1b'; }));
  // Long values are cut, and never within a character.
  CHECK(Quote(std::string(81, 'x')) == "\"" + std::string(80, 'x') + "…\"");
  CHECK(Quote(std::string(79, 'x') + "é") == "\"" + std::string(79, 'x') + "…\"");
}

TEST_CASE("Caps: size, depth, rules, lists, errors") {
  Check({
      {kHead + std::string(1 << 20, '#'),
       {"p:1:1: " + std::to_string((1 << 20) + kHead.size()) +
        " octets: expected at most 1048576"}},
      {kHead + "x = " + std::string(17, '[') + std::string(17, ']'),
       {"p:4:21: nested too deep: expected at most 16 open brackets"}},
      {kHead + "x = 1\x0b", {"p:4:6: control character \\x0b: expected none in a policy"}},
  });
  // Enough to end any parser that recurses.
  CHECK(Errors(kHead + "x = " + std::string(500'000, '[')).size() == 1);
  std::string dotted = kHead + "x";
  for (int i = 0; i < 500'000; ++i) dotted += ".x";
  CHECK(Errors(dotted + " = 1") ==
        std::vector<std::string>{"p:4:34: key nested too deep: expected at most 16 dots"});
  std::string rules = kHead;
  for (int i = 0; i < 4097; ++i) rules += "[[rule]]\naction = \"bypass\"\n";
  REQUIRE(Errors(rules).size() == 1);
  CHECK(Errors(rules)[0].ends_with("4097 rules: expected at most 4096"));
  std::string ports = "1";
  for (int port = 2; port <= 65; ++port) ports += "," + std::to_string(port);
  Check({{kRule + "remote_port = [" + ports + "]",
          {"p:6:15: remote_port has 65 elements: expected 1 to 64"}}});
  std::string unknown;
  for (int i = 0; i < 5'000; ++i) unknown += "k" + std::to_string(i) + " = 1\n";
  const std::vector<std::string> many = Errors(kHead + unknown);
  CHECK(many.size() == kMaxErrors + 1);
  CHECK(many[0] == "p:1:1: more than 1000 errors: these are some of them");
}

}  // namespace
}  // namespace latchkey::policy
