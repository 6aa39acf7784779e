// What programs do to their descriptors, processes and threads, and what the shim makes of a broken
// latch.
#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

TEST_CASE("a program that closes everything keeps its connection to the broker") {
  FakeBroker broker;
  Server server;
  SECTION("one by one") {
    CHECK(Run("close-loop", broker, server) == "connect 0\n");
    CHECK(broker.Count(Type::kAttach) == 1);
  }
  SECTION("in ranges") {
    CHECK(Run("close-range", broker, server) ==
          "close_range 0\nconnect 0\nno flags 1\nunshare 0\nconnect 0\n");
    CHECK(broker.Count(Type::kAttach) == 1);
  }
}

TEST_CASE("a program that replaces the connection gets its file, and nothing is written there") {
  FakeBroker broker;
  Server server;
  CHECK(Run("dup-over", broker, server) == "dup2 1\nconnect 0\noctets 0\nsame 1\n");
  CHECK(broker.Count(Type::kAttach) == 2);
}

TEST_CASE("parent and child each ask on a connection of their own") {
  FakeBroker broker;
  Server server;
  CHECK(Run("fork", broker, server) == "parent 0\nchild 0\nagain 0\n");
  CHECK(broker.Count(Type::kAttach) == 2);
}

TEST_CASE("a vfork child that closes everything and execs harms nobody") {
  FakeBroker broker;
  Server server;
  CHECK(Run("vfork", broker, server) == "errno 77\nconnect 0\nread 5\nend 0\nstatus 0\nparent 0\n");
  CHECK(broker.Count(Type::kAttach) == 2);
}

TEST_CASE("sixteen threads ask at the same time") {
  FakeBroker broker;
  Server server;
  CHECK(Run("threads", broker, server) == "good 320\n");
  CHECK(broker.Count(Type::kConnect) == 320);
}

TEST_CASE("threads can be cancelled in data calls, the last one too, and in accept") {
  FakeBroker broker;
  Server server(Server::Manner::kHolding);
  CHECK(Run("cancel", broker, server) == "connect 0\ncancel 0\njoin 0\ncancelled 1\n");
  CHECK(Run("cancel-self", broker, server).empty());
  CHECK(Run("cancel-accept", broker, server) ==
        "listen 0\ncancel 0\njoin 0\ncancelled 1\nconnect 0\naccept 0\nmore 0\n");
}

TEST_CASE("no descriptor stays behind") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {GENERATE(Verdict::kLatched, Verdict::kRefused), 0});
  CHECK(Run("count", broker, server) == "more 0\n");
}

TEST_CASE("a broken latch says ECONNRESET, not end of file") {
  FakeBroker broker;
  Server server;
  broker.SetTrouble(GENERATE(wire::Trouble::kBroken, wire::Trouble::kNoSa));
  const std::string reset = std::to_string(ECONNRESET) + "\n";
  const std::string output = Run("ended", broker, server);
  CHECK(output.starts_with("connect 0\nread " + reset + "readv " + reset + "recv " + reset +
                           "recvmsg " + reset + "again " + reset + "getsockopt 0\n"));
  CHECK(output.ends_with("none 0\n"));
}

TEST_CASE("SO_ERROR of a broken latch is ECONNRESET") {
  FakeBroker broker;
  Server server;
  broker.SetTrouble(wire::Trouble::kBroken);
  CHECK(Run("ended", broker, server).ends_with(Line("error", ECONNRESET) + "none 0\n"));
}

TEST_CASE("when slots ran out an end of file counts as broken") {
  FakeBroker broker;
  Server server;
  broker.page().flags = wire::kPageOverflow;
  broker.page().troubled = wire::kPageSlots;
  CHECK(Run("ended", broker, server).starts_with("connect 0\n" + Line("read", ECONNRESET)));
}

TEST_CASE("after a restart of the broker its new page counts") {
  FakeBroker broker;
  Server server;
  Probe probe("wait-end", server.port(),
              {{"LATCHKEY_SOCKET", broker.path()}, {"LATCHKEY_TOKEN", broker.token()}});
  REQUIRE(probe.ReadUntil("ready") == "ready\n");
  broker.Stop();
  broker.RenewPage();
  broker.SetTrouble(wire::Trouble::kBroken);
  broker.Start();
  probe.Continue();
  CHECK(probe.Finish() == "connect 0\n" + Line("end", ECONNRESET));
}

TEST_CASE("a latch in good order ends as TCP does") {
  FakeBroker broker;
  Server server;
  const bool others_in_trouble = GENERATE(false, true);
  if (others_in_trouble) {
    broker.page().slots[wire::SlotOf(~1U)].cookie = ~1U;
    broker.page().slots[wire::SlotOf(~1U)].trouble = wire::Trouble::kBroken;
    broker.page().troubled = 1;
  }
  CHECK(Run("ended", broker, server) ==
        "connect 0\nread 0\nreadv 0\nrecv 0\nrecvmsg 0\nagain 0\ngetsockopt 0\nerror 0\nnone 0\n");
}

TEST_CASE("nothing to read is EAGAIN while the latch waits for its SA") {
  FakeBroker broker;
  Server server(Server::Manner::kSilent);
  broker.SetTrouble(GENERATE(wire::Trouble::kFree, wire::Trouble::kNoSa));
  CHECK(Run("quiet", broker, server) == "connect 0\n" + Line("peek", EAGAIN) + "nothing 0\n");
}

TEST_CASE("a broken latch has no more EAGAIN") {
  FakeBroker broker;
  Server server(Server::Manner::kSilent);
  broker.SetTrouble(wire::Trouble::kBroken);
  CHECK(Run("quiet", broker, server) == "connect 0\n" + Line("peek", ECONNRESET) + "nothing 0\n");
}

TEST_CASE("options that could undo a latch are refused, others are the kernel's") {
  FakeBroker broker;
  Server server;
  CHECK(Run("options", broker, server) ==
        Line("xfrm", EPERM) + Line("xfrm6", EPERM) + Line("ipsec", EPERM) + Line("ipsec6", EPERM) +
            Line("no-socket", ENOTSOCK) + Line("fastopen", EOPNOTSUPP) + "keepalive 0\n");
}

TEST_CASE("datagrams go where the default is not to discard") {
  FakeBroker broker;
  Server server;
  SECTION("free") { CHECK(Run("datagrams", broker, server) == "sendto 0\nconnect 0\n"); }
  SECTION("denied") {
    broker.page().flags = wire::kPageDenyDatagrams;
    broker.Set(wire::Type::kConnect, {wire::Verdict::kRefused, EPROTO});
    broker.Set(wire::Type::kPeer, {wire::Verdict::kRefused, ENOKEY});
    CHECK(Run("datagrams", broker, server) == Line("sendto", ENOKEY) + Line("connect", EPROTO));
  }
}

TEST_CASE("denied datagrams do not go under another family's name") {
  FakeBroker broker;
  Server server;
  broker.page().flags = wire::kPageDenyDatagrams;
  broker.Set(wire::Type::kPeer, {wire::Verdict::kRefused, ENOKEY});
  CHECK(Run("unspecified", broker, server) == Line("sendto", ENOKEY));
}

TEST_CASE("fast open on a latched flow is left to connect") {
  FakeBroker broker;
  Server server;
  CHECK(Run("fast-open", broker, server) ==
        Line("sendto", EOPNOTSUPP) + Line("sendmsg", EOPNOTSUPP) + Line("sendmmsg", EOPNOTSUPP) +
            Line("syscall", EOPNOTSUPP));
  CHECK(broker.Count(Type::kConnect) == 0);
}

}  // namespace
}  // namespace latchkey::testing
