// What doctor says of brokers, the key manager and programs.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tools/latchkey/doctor_broker.h"
#include "tools/latchkey/doctor_keys.h"
#include "tools/latchkey/doctor_program.h"

namespace latchkey::tool {
namespace {

using Brokers = std::vector<BrokerFacts>;

std::string TextOf(const Brokers& brokers) { return FindingsText(BrokerFindings(brokers)); }
std::string TextOf(const KeyManagerFacts& facts) { return FindingsText(KeyManagerFindings(facts)); }

TEST_CASE("A line is one line, whatever a name holds") {
  CHECK(FindingsText({Ok("a"), Bad("b\nc", "d\x1b"), Note("e"), Note("f", "g")}) ==
        "ok    a\nBAD   b; c: d\\x1b\nnote  e\nnote  f: g\n");
  CHECK(AnyBad({Ok("a"), Bad("b", "c")}));
  CHECK_FALSE(AnyBad({Ok("a"), Note("b")}));
  CHECK_FALSE(AnyBad({}));
}

TEST_CASE("A broker answers, or it is said what to do") {
  CHECK(TextOf(Brokers{{"/b", 0, "", true}}) ==
        "ok    a broker answers at /b (protocol 1, of this network namespace)\n");
  CHECK(TextOf(Brokers{{"/b", 0, "", {}}}) ==
        "ok    a broker answers at /b (protocol 1, of which network namespace only root can "
        "see)\n");
  CHECK(TextOf(Brokers{{"/b", ENOENT, "", {}}})
            .starts_with("BAD   no broker at /b: start latchkeyd"));
  CHECK(TextOf(Brokers{{"/b", ECONNREFUSED, "", {}}}).starts_with("BAD   no broker at /b: "));
  CHECK(TextOf(Brokers{{"/b", EACCES, "", {}}}).starts_with("BAD   /b: Permission denied: "));
  CHECK(TextOf(Brokers{{"/b", 0, "the broker is of another version", true}})
            .starts_with("BAD   /b: the broker is of another version: restart latchkeyd"));
  CHECK(TextOf(Brokers{{"/b", 0, "", false}})
            .starts_with("BAD   the broker at /b serves another network namespace: "));
}

TEST_CASE("Private brokers that are gone, or of elsewhere, are no fault") {
  const BrokerFacts good{"/b", 0, "", true};
  CHECK_FALSE(AnyBad(BrokerFindings({good, {"/p", ECONNREFUSED, "", {}}, {"/q", 0, "", false}})));
  CHECK(BrokerFindings({good, {"/p", 0, "", true}}).size() == 2);
  CHECK(TextOf({{"/b", 0, "", true, ""}}).ends_with("\nok    it can fence programs in\n"));
  const Brokers lacking{{"/b", 0, "", true, "no cgroups"}};
  CHECK(TextOf(lacking).find("\nnote  it fences no program in (no cgroups): ") !=
        std::string::npos);
  CHECK_FALSE(AnyBad(BrokerFindings(lacking)));
  CHECK(AnyBad(BrokerFindings({good, {"/p", 0, "the broker does not answer", true}})));
}

TEST_CASE("A named broker is the only one asked") {
  const Brokers brokers = ReachBrokers("/no/such/socket");
  REQUIRE(brokers.size() == 1);
  CHECK(brokers[0].path == "/no/such/socket");
  CHECK(brokers[0].error == ENOENT);
}

TEST_CASE("charon is reached, absent, or hangs") {
  KeyManagerFacts facts;
  facts.error = ENOENT;
  CHECK(TextOf(facts).starts_with("note  no charon at /run/charon.vici: "));
  facts.error = EACCES;
  CHECK(TextOf(facts) ==
        "note  not root: charon's socket /run/charon.vici was not tried: run it as root\n");
  facts.error = ECONNREFUSED;
  CHECK(TextOf(facts).starts_with(
      "BAD   charon's socket /run/charon.vici does not answer: Connection refused: "));
  facts.error = 0;
  CHECK(TextOf(facts).starts_with(
      "ok    charon answers at /run/charon.vici\nnote  charon does not say in "));
}

TEST_CASE("Children are judged by the reqids of their SAs") {
  KeyManagerFacts facts;
  facts.listed = true;
  CHECK(TextOf(facts).find("\nnote  charon has no children configured") != std::string::npos);
  facts.children = {{"home", "db", {70'000}}, {"home", "web", {70'001, 3}}, {"away", "x", {}}};
  const std::string text = TextOf(facts);
  CHECK(text.find("\nok    child home.db: its reqid is fixed (70000)\n") != std::string::npos);
  CHECK(text.find("\nnote  child home.web: its reqid 3 may be one that charon allots") !=
        std::string::npos);
  CHECK(text.find("\nnote  child away.x: not up, ") != std::string::npos);
  CHECK(text.find(": swanctl --initiate --child x\n") != std::string::npos);
}

TEST_CASE("The key manager's socket is tried") {
  const char* base = std::getenv("TEST_TMPDIR");
  std::string folder = std::string(base != nullptr ? base : "/tmp") + "/viciXXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  // A sandbox's path may be too long for a socket's name.
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder);
  CHECK(ReachKeyManager("vici").error == ENOENT);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "vici");
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(ReachKeyManager("vici").error == ECONNREFUSED);
  REQUIRE(listen(listener, 1) == 0);
  CHECK(ReachKeyManager("vici").error == 0);
  close(listener);
  std::filesystem::current_path(before);
  std::filesystem::remove_all(folder);
  CHECK(ReachKeyManager(std::string(200, 'x')).error == ENAMETOOLONG);
}

TEST_CASE("A program is found, can be preloaded, and has a policy or none") {
  CHECK(FindingsText(ProgramFindings("no-such-program", "/bin", "/no/such/folder")) ==
        "BAD   no-such-program: no such program in PATH: name a program that can be run\n");
  const std::string text = FindingsText(ProgramFindings("true", "/usr/bin", "/no/such/folder"));
  CHECK(text ==
        "ok    /usr/bin/true can be run under Latchkey\nnote  no policy in /no/such/folder names "
        "it: without -p its flows are the system's to judge: name it in the `program` of one where "
        "it is to have its own\n");

  const char* base = std::getenv("TEST_TMPDIR");
  std::string folder = std::string(base != nullptr ? base : "/tmp") + "/programXXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  std::ofstream(folder + "/a.toml")
      << "latchkey = 1\napplication = \"a\"\nprogram = [\"/usr/bin/true\"]\n";
  CHECK(FindingsText(ProgramFindings("true", "/usr/bin", folder)) ==
        "ok    /usr/bin/true can be run under Latchkey\nok    its policy is " + folder +
            "/a.toml\n");
  std::ofstream(folder + "/b.toml") << "nonsense = 1\n";
  CHECK(AnyBad(ProgramFindings("true", "/usr/bin", folder)));
  std::ofstream(folder + "/text") << "hello\n";
  REQUIRE(chmod((folder + "/text").c_str(), 0755) == 0);
  CHECK(FindingsText(ProgramFindings(folder + "/text", "", folder))
            .starts_with("BAD   " + folder + "/text: neither an ELF program nor a script"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace latchkey::tool
