// Opening sessions: policies in error, files that are none, and whose process may be named.
#include <poll.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;

TEST_CASE("A second request before the session is opened ends the connection, and the session") {
  Rig rig;
  Peer peer = rig.Connect();
  const UniqueFd file = FileWith(kProtectAll);
  REQUIRE(peer.Send(Rig::OpenRequest(), {file.get()}));
  REQUIRE(peer.Send(Rig::Query(Type::kList, 0)));
  rig.server->OnReadable(peer.number);
  REQUIRE(rig.server->IsOpening(peer.number));
  rig.server->OnReadable(peer.number);
  CHECK_FALSE(rig.server->HasConnection(peer.number));
  pollfd text{rig.server->TextsFd(), POLLIN, 0};
  REQUIRE(poll(&text, 1, 10'000) == 1);
  rig.server->OnTexts();
  CHECK(rig.sessions->all().empty());
}

TEST_CASE("A policy in error is refused with every line of it") {
  Rig rig;
  const auto refused = [&](const std::string& text) {
    Peer peer = rig.Connect();
    const auto opened = rig.Open(peer, text);
    REQUIRE(opened);
    CHECK(opened->reason == Reason::kBadPolicy);
    for (const uint8_t octet : opened->token) CHECK(octet == 0);
    CHECK(opened->text[wire::kTextSize - 1] == '\0');
    // The connection made no session, and gives no second try.
    CHECK_FALSE(rig.Open(peer));
    return std::string(opened->text);
  };
  const std::string text = refused("latchkey = 1\nnonsense = 1\nmore = 2\n");
  CHECK(text.find("app.toml:2:") != std::string::npos);
  CHECK(text.find("app.toml:3:") != std::string::npos);
  CHECK(refused("latchkey = 1\napplication = \"a\"\nprogram = [\"/bin/other\"]\n")
            .find("/usr/bin/app") != std::string::npos);
  std::string many = "latchkey = 1\n";
  for (int i = 0; i < 200; ++i) many += "unknown" + std::to_string(i) + " = 1\n";
  CHECK(refused(many).size() == wire::kTextSize - 1);
  CHECK(refused(std::string((1 << 20) + 1, '#')).find("1 MiB") != std::string::npos);
  CHECK(rig.sessions->all().empty());

  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  Peer peer = rig.Connect();
  const auto opened = rig.Ask<wire::Opened>(peer, Rig::OpenRequest(), {ends[0]});
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kBadPolicy);
  CHECK(std::string(opened->text) == "app.toml: not a regular file");
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("Only the launched program may be named for the kill") {
  Rig rig;
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  const UniqueFd parent(static_cast<int>(syscall(SYS_pidfd_open, getppid(), 0)));
  const UniqueFd file = FileWith("no pidfd");
  wire::Open request = Rig::OpenRequest(wire::kOpenLauncher | wire::kOpenNoPolicy);
  for (const int other : {parent.get(), file.get()}) {
    Peer peer = rig.Connect();
    CHECK_FALSE(rig.Ask<wire::Opened>(peer, request, {other}));
    CHECK(peer.Ended());
  }
  Peer peer = rig.Connect();
  const auto opened = rig.Ask<wire::Opened>(peer, request, {self.get()});
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kNone);
}

}  // namespace
}  // namespace latchkey::broker
