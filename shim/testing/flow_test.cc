// connect, listen and accept under the shim: what the program sees for each answer of the broker.
#include <arpa/inet.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

wire::PageRule RuleFor(uint16_t port, wire::Settle settle) {
  wire::PageRule rule{};
  rule.settle = settle;
  rule.port_low = rule.port_high = port;
  return rule;
}

const std::string kServed = "errno 77\nconnect 0\nread 5\nend 0\n";

TEST_CASE("a connection that the broker allows passes, and errno is kept") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {GENERATE(Verdict::kLatched, Verdict::kBypass, Verdict::kLocal), 0});
  CHECK(Run("connect", broker, server) == kServed);
  CHECK(broker.Count(Type::kConnect) == 1);
  CHECK(broker.Count(Type::kAttach) == 1);
}

TEST_CASE("a connection that the broker refuses fails with its errno") {
  FakeBroker broker;
  Server server;
  const int error = GENERATE(EACCES, ENOKEY, EKEYREJECTED, EPROTO, ETIMEDOUT);
  broker.Set(Type::kConnect, {Verdict::kRefused, error});
  CHECK(Run("connect", broker, server) == Line("connect", error));
}

TEST_CASE("a refusal without an errno, and a verdict nobody knows, are refusals") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {GENERATE(Verdict::kRefused, static_cast<Verdict>(9)), 0});
  CHECK(Run("connect", broker, server) == Line("connect", EACCES));
}

TEST_CASE("syscall() goes the same way, and other numbers as before") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("syscall", broker, server) ==
        Line("connect", EKEYREJECTED) + "pid 1\n" + Line("preadv2", EBADF));
}

TEST_CASE("what the page settles needs no answer") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  broker.page().rule_count = 1;
  SECTION("bypass") {
    broker.page().rules[0] = RuleFor(server.port(), wire::Settle::kBypass);
    CHECK(Run("connect", broker, server) == kServed);
    CHECK(broker.Count(Type::kConnect) == 0);
  }
  SECTION("discard: told for the record, and refused whatever is answered") {
    broker.page().rules[0] = RuleFor(server.port(), wire::Settle::kDiscard);
    for (const Verdict verdict : {Verdict::kRefused, Verdict::kLatched}) {
      broker.Set(Type::kConnect, {verdict, EKEYREJECTED});
      CHECK(Run("connect", broker, server) == Line("connect", EACCES));
    }
    CHECK(broker.Count(Type::kConnect) == 2);
  }
  SECTION("being rewritten: asked") {
    broker.page().rules[0] = RuleFor(server.port(), wire::Settle::kBypass);
    broker.page().generation = 1;
    CHECK(Run("connect", broker, server) == Line("connect", EKEYREJECTED));
  }
}

TEST_CASE("a second connect is the kernel's") {
  FakeBroker broker;
  Server server;
  CHECK(Run("twice", broker, server) == "first 0\n" + Line("second", EISCONN));
  CHECK(broker.Count(Type::kConnect) == 1);
}

TEST_CASE("addresses that the kernel refuses are refused by it") {
  FakeBroker broker;
  Server server;
  const std::string unreadable = Line("connect", EFAULT);
  CHECK(Run("pointers", broker, server) == unreadable + unreadable + unreadable +
                                               Line("null", EFAULT) + Line("short", EINVAL) +
                                               Line("no-socket", ENOTSOCK) + Line("closed", EBADF));
}

TEST_CASE("disconnecting is told to the broker") {
  FakeBroker broker;
  Server server;
  CHECK(Run("disconnect", broker, server) == "connect 0\ndisconnect 0\n");
  CHECK(broker.Count(Type::kRelease) == 1);
}

TEST_CASE("a refused listener does not listen") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kListen, {Verdict::kRefused, EACCES});
  CHECK(Run("accept", broker, server) == Line("listen", EACCES));
}

TEST_CASE("refused children are never seen: accept goes on to the next") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kAccept, {Verdict::kRefused, EKEYREJECTED}, 2);
  CHECK(Run("accept", broker, server) == "listen 0\nerrno 77\naccept 0\nnumber 2\naddress 1\n");
  CHECK(broker.Count(Type::kAccept) == 3);
}

TEST_CASE("a non-blocking accept finds nobody when the only child was refused") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kAccept, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("accept-nb", broker, server) == Line("accept", EAGAIN));
}

TEST_CASE("a listener whose children have no names is left to the kernel") {
  FakeBroker broker;
  Server server;
  if (GENERATE(false, true)) broker.ForgetSession();
  CHECK(Run("nameless", broker, server) == "accept 0\naccept4 0\n" + Line("named", ECONNABORTED));
  CHECK(broker.Count(Type::kAccept) == 0);
}

TEST_CASE("a sandbox that hides what a socket is lets nothing pass") {
  FakeBroker broker;
  Server server;
  CHECK(Run("sandbox", broker, server) == Line("connect", EACCES) + Line("fast-open", EOPNOTSUPP) +
                                              Line("listen", EACCES) + Line("udp", EACCES) +
                                              Line("unix", ENOENT));
}

TEST_CASE("no broker: refused; back again: asked again") {
  FakeBroker broker;
  Server server;
  Probe probe("wait", server.port(), In(broker));
  REQUIRE(probe.ReadUntil("ready") == "ready\n");
  broker.Stop();
  probe.Continue();
  CHECK(probe.ReadUntil("ready") == Line("connect", EHOSTUNREACH) + "ready\n");
  broker.Start();
  probe.Continue();
  CHECK(probe.Finish() == "connect 0\n");
}

TEST_CASE("a broker that was restarted in between is not noticed") {
  FakeBroker broker;
  Server server;
  Probe probe("wait", server.port(), In(broker));
  REQUIRE(probe.ReadUntil("ready") == "ready\n");
  broker.Stop();
  broker.Start();
  probe.Continue();
  CHECK(probe.ReadUntil("ready") == "connect 0\nready\n");
  probe.Continue();
  CHECK(probe.Finish() == "connect 0\n");
}

TEST_CASE("without a session only this host can be reached") {
  FakeBroker broker;
  Server server;
  auto environment = In(broker);
  SECTION("no broker") { broker.Stop(); }
  SECTION("the broker does not know the session") { broker.ForgetSession(); }
  CHECK(Probe("blackhole", 0, environment).Finish() == Line("connect", EHOSTUNREACH));
  CHECK(Probe("connect", server.port(), environment).Finish() == kServed);
}

TEST_CASE("started by hand, the shim opens a session of its own") {
  FakeBroker broker;
  Server server;
  const std::map<std::string, std::string> environment = {{"LATCHKEY_SOCKET", broker.path()},
                                                          {"LATCHKEY_POLICY", "/dev/null"}};
  SECTION("allowed, and children belong to it") {
    Probe probe("vfork", server.port(), environment);
    CHECK(probe.Finish() == kServed + "status 0\nparent 0\n");
    CHECK(probe.errors().empty());
    CHECK(broker.Count(Type::kOpen) == 1);
  }
  SECTION("refused: the text is printed, nothing gets out") {
    broker.SetOpen(wire::Reason::kBadPolicy, "app.toml:3:1: unknown key");
    Probe probe("blackhole", 0, environment);
    CHECK(probe.Finish() == Line("connect", EACCES));
    CHECK(probe.errors() == "latchkey: app.toml:3:1: unknown key\n");
  }
}

}  // namespace
}  // namespace latchkey::testing
