// Warnings: each for what it is about, and none for a policy that leaves nothing open.
#include "policy/lint.h"

#include <catch2/catch.hpp>
#include <string>

namespace latchkey::policy {
namespace {

std::vector<std::string> Warnings(const std::string& rules, const LintFacts& facts = {}) {
  const auto policy = Parse(
      "latchkey = 1\napplication = \"a\"\n[peer.p]\nid = [\"bob\"]\n"
      "[peer.star]\nid = [\"*\"]\n[protection.r]\npin = \"reqid\"\n" +
          rules,
      "p");
  REQUIRE(policy);
  std::vector<std::string> texts;
  for (const ParseError& warning : Lint(*policy, "p", facts)) {
    texts.push_back(warning.ToString());
  }
  return texts;
}

using List = std::vector<std::string>;

TEST_CASE("A policy that leaves nothing open has no warnings") {
  CHECK(Warnings("[[rule]]\ndirection = \"in\"\nremote = [\"127.0.0.0/8\", \"::1\"]\n"
                 "action = \"bypass\"\n[[rule]]\naction = \"protect\"\npeer = \"p\"\n")
            .empty());
}

TEST_CASE("Rules that can never match") {
  CHECK(Warnings("[[rule]]\nremote = [\"10.0.0.0/8\"]\naction = \"bypass\"\n"
                 "[[rule]]\nremote = [\"10.1.0.0/16\", \"10.2.0.1\"]\nremote_port = [80]\n"
                 "action = \"discard\"\n") ==
        List{"p:12:1: rule \"rule 2\" can never match: rule \"rule 1\" before it covers it"});
  CHECK(Warnings("[[rule]]\nremote = [\"10.0.0.0/8\"]\naction = \"bypass\"\n"
                 "[[rule]]\nremote = [\"10.1.0.0/16\", \"11.0.0.1\"]\naction = \"discard\"\n"
                 "[[rule]]\naction = \"discard\"\n")
            .empty());
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\nremote_port = [\"80-90\"]\n"
                 "action = \"bypass\"\n[[rule]]\nremote_port = [85]\naction = \"discard\"\n")
            .empty());
  CHECK(Warnings("[[rule]]\naction = \"bypass\"\n[[rule]]\ndirection = \"in\"\n"
                 "local_port = [85]\naction = \"discard\"\n")
            .size() == 1);
}

TEST_CASE("Rules that can never match because of several") {
  CHECK(Warnings("[[rule]]\nremote = [\"0.0.0.0/0\"]\naction = \"bypass\"\n"
                 "[[rule]]\nname = \"six\"\nremote = [\"::/0\"]\naction = \"bypass\"\n"
                 "  [[rule]]\naction = \"discard\"\n") ==
        List{"p:16:3: rule \"rule 3\" can never match: rule \"rule 1\" and rule \"six\" before it "
             "cover it together"});
}

TEST_CASE("The grant for optional protection") {
  const std::string rule =
      "[[rule]]\ndirection = \"out\"\naction = \"protect-or-bypass\"\npeer = \"p\"\n";
  const std::string says =
      "p:9:1: rule \"rule 1\" may go in clear: where the system protects, that needs the grant "
      "\"bypass\"";
  CHECK(Warnings(rule) == List{says});
  CHECK(Warnings(rule, {.may_bypass = false, .system = "/s.toml"}) ==
        List{says + ", which /s.toml does not give"});
  CHECK(Warnings(rule, {.may_bypass = true, .system = "/s.toml"}).empty());
}

TEST_CASE("Incoming connections: the host's own, and those by the client's port") {
  const auto in = [](const std::string& keys) {
    return "[[rule]]\naction = \"protect\"\npeer = \"p\"\n" + keys + "\n";
  };
  const List own = {
      "p:9:1: rule \"rule 1\" refuses clients on this host: a bypass rule before it, with remote = "
      "[\"127.0.0.0/8\", \"::1\"], would let them in"};
  CHECK(Warnings(in("direction = \"in\"")) == own);
  CHECK(Warnings(in("direction = \"in\"\nremote = [\"0.0.0.0/0\"]")) == own);
  CHECK(Warnings(in("direction = \"in\"\nremote = [\"192.0.2.0/24\"]")).empty());
  CHECK(Warnings(in("direction = \"in\"\nremote = [\"192.0.2.0/24\", \"127.0.0.0/8\"]")) == own);
  CHECK(
      Warnings(in("remote_port = [80]")) ==
      List{
          "p:9:1: rule \"rule 1\" speaks of incoming connections by the client's port too, and "
          "they are refused (unsupported): direction = \"out\" leaves them to the rules after it"});
  CHECK(Warnings(in("direction = \"out\"\nremote_port = [80]")).empty());
}

TEST_CASE("What lets datagrams in where others keep them from going out so") {
  const auto warnings = [](const std::string& first, const std::string& second) {
    return Warnings("[[rule]]\naction = \"protect\"\npeer = \"p\"\n" + first +
                    "\n[[rule]]\naction = \"bypass\"\n" + second + "\n");
  };
  const std::string out = "direction = \"out\"";
  const List says = {
      "p:13:1: rule \"rule 2\" gives way to rule \"rule 1\" where a UDP socket without a "
      "connection "
      "is concerned: once it has sent there, it hears nothing from there in clear; a rule with "
      "direction = \"in\" and local_port says for which servers it is"};
  CHECK(warnings(out, "") == says);
  CHECK(warnings(out, "direction = \"in\"") == says);
  CHECK(warnings(out, "local_port = [53]") == says);
  CHECK(warnings(out, "remote = [\"10.0.0.0/8\"]") == says);
  CHECK(warnings(out, "protocol = \"udp\"") == says);
  CHECK(warnings(out + "\nprotocol = \"udp\"", "protocol = \"udp\"").size() == 1);
  CHECK(warnings(out + "\nremote = [\"10.0.0.0/8\"]", "direction = \"out\"").empty());
  CHECK(warnings(out, "direction = \"in\"\nlocal_port = [53]").empty());
  CHECK(warnings(out, "protocol = \"tcp\"").empty());
  CHECK(warnings(out + "\nprotocol = \"tcp\"", "").empty());
  CHECK(warnings(out + "\nremote_port = [53]", "").empty());
  CHECK(warnings(out, "remote = [\"127.0.0.0/8\", \"::1\"]").empty());
  CHECK(warnings(out + "\nremote = [\"10.1.0.0/16\"]", "remote = [\"10.2.0.0/16\"]").empty());
}

TEST_CASE("Peers, pins, optional protection, the host's own clients, serials") {
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\naction = \"protect\"\n") ==
        List{"p:9:1: rule \"rule 1\" names no peer: any authenticated peer will do"});
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\naction = \"protect\"\npeer = \"star\"\n") ==
        List{"p:9:1: rule \"rule 1\" has the peer id \"*\": any name of one label will do"});
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\naction = \"protect-or-bypass\"\n"
                 "peer = \"p\"\n") ==
        List{"p:9:1: rule \"rule 1\" may go in clear: where the system protects, that needs the "
             "grant \"bypass\""});
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\naction = \"protect\"\npeer = \"p\"\n"
                 "protection = \"r\"\n")
            .size() == 1);
  CHECK(Warnings("[[rule]]\ndirection = \"out\"\naction = \"protect\"\npeer = \"p\"\n"
                 "protection = \"r\"\nreqid = 7\n")
            .empty());
  CHECK(Warnings("[[rule]]\ndirection = \"in\"\naction = \"protect\"\npeer = \"p\"\n").size() == 1);
  CHECK(Warnings("", {.is_signed = true}) ==
        List{"p:1:1: signed, but without a serial: an older version could take its place"});
}

}  // namespace
}  // namespace latchkey::policy
