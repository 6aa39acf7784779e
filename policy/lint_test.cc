// Warnings: each for what it is about, and none for a policy that leaves nothing open.
#include "policy/lint.h"

#include <catch2/catch.hpp>
#include <string>

namespace latchkey::policy {
namespace {

std::vector<std::string> Warnings(const std::string& rules, bool is_signed = false) {
  const auto policy = Parse(
      "latchkey = 1\napplication = \"a\"\n[peer.p]\nid = [\"bob\"]\n"
      "[peer.star]\nid = [\"*\"]\n[protection.r]\npin = \"reqid\"\n" +
          rules,
      "p");
  REQUIRE(policy);
  std::vector<std::string> texts;
  for (const ParseError& warning : Lint(*policy, "p", is_signed)) {
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
  CHECK(Warnings("", true) ==
        List{"p: signed, but without a serial: an older version could take its place"});
}

}  // namespace
}  // namespace latchkey::policy
