// What connect() does while the broker waits for keys, and when it lets a connection go on without.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Reason;
using wire::Type;
using wire::Verdict;

// Waits, and is never decided.
constexpr Answer kForEver{.verdict = Verdict::kWait, .waits = 1000, .wait_ms = 100};
const std::string kInterrupted = Line("connect", EINTR) +
                                 "handled 1\nflags 0\ntimeout 0\npoll 1\nevents 4\nerror 0\n" +
                                 "again 0\n" + Line("once more", EISCONN);
const std::string kTimedOut = Line("connect", EINPROGRESS) + "in time 1\ntimeout 400\n";
const std::string kServed = "errno 77\nconnect 0\nread 5\nend 0\n";

TEST_CASE("a blocking connect waits as long as the broker says that it does") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect,
             {.verdict = GENERATE(Verdict::kLatched, Verdict::kBypass), .waits = GENERATE(1, 7)});
  CHECK(Run("connect", broker, server) == kServed);
  CHECK(broker.Count(Type::kConnect) == 1);
  CHECK(broker.flags(Type::kConnect) == 0);
}

TEST_CASE("what is refused after a wait fails with its errno") {
  FakeBroker broker;
  Server server;
  const int error = GENERATE(ENOKEY, ETIMEDOUT, EKEYREJECTED, EPROTO, EACCES);
  broker.Set(Type::kConnect, {.verdict = Verdict::kRefused, .error = error, .waits = 3});
  CHECK(Run("connect", broker, server) == Line("connect", error));
}

TEST_CASE("a broker that goes away while a connect waits") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, kForEver, 1);
  Probe probe("connect", server.port(), In(broker));
  broker.AwaitWaiting(1);
  SECTION("for good: refused") {
    broker.Stop();
    CHECK(probe.Finish() == Line("connect", EHOSTUNREACH));
  }
  SECTION("and comes back before that is noticed: asked again") {
    broker.Stop();
    broker.Start();
    const std::string output = probe.Finish();
    CHECK((output == kServed || output == Line("connect", EHOSTUNREACH)));
  }
}

TEST_CASE("what a connect of no consequence is recorded for needs no waiting") {
  FakeBroker broker;
  Server server;
  broker.page().otherwise = wire::Settle::kDiscard;
  broker.Set(Type::kConnect, kForEver);
  CHECK(Run("connect", broker, server) == Line("connect", EACCES));
  broker.AwaitWaiting(0);
  CHECK(broker.withdrawn() == 1);
}

TEST_CASE("a handler without SA_RESTART ends the wait, and the connection goes on being made") {
  FakeBroker broker;
  Server server(Server::Manner::kHolding);
  const Verdict then = GENERATE(Verdict::kLarval, Verdict::kLatched);
  broker.Set(Type::kConnect, {.verdict = then, .waits = GENERATE(0, 2)});
  broker.Set(Type::kConnect, kForEver, 1);
  const std::string output = Run("interrupted", broker, server);
  // The server is on this host: the kernel may have connected before it could be cut short.
  CHECK((output == kInterrupted ||
         output == "connect 0\nhandled 1\nflags 0\ntimeout 0\npoll 1\nevents 4\nerror 0\n" +
                       Line("again", EISCONN) + Line("once more", EISCONN)));
  CHECK(broker.withdrawn() == 1);
  CHECK(broker.Count(Type::kConnect) == 2);
  CHECK(broker.flags(Type::kConnect) == wire::kRequestNonblocking);
}

TEST_CASE("a wait that was cut short ends with EINTR while nobody answers at the other end") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  broker.Set(Type::kConnect, kForEver, 1);
  Probe probe("interrupted", server.port(), In(broker));
  broker.AwaitWaiting(1);
  broker.AwaitWaiting(0);
  SECTION("and is refused in the end") {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    broker.Refuse(Reason::kPeerMismatch);
    CHECK(probe.Finish() == Line("connect", EINTR) +
                                "handled 1\nflags 0\ntimeout 0\npoll 1\nevents 28\n" +
                                Line("error", EKEYREJECTED) + Line("again", EKEYREJECTED) +
                                Line("once more", EKEYREJECTED));
  }
  SECTION("and is made in the end") {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    server.Open();
    CHECK(probe.Finish() == kInterrupted);
  }
}

TEST_CASE("a wait that was cut short and cannot go on is refused") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {.verdict = Verdict::kRefused, .error = ENOKEY});
  broker.Set(Type::kConnect, kForEver, 1);
  CHECK(Run("interrupted", broker, server).starts_with(Line("connect", ENOKEY)));
}

TEST_CASE("handlers with SA_RESTART run and change nothing") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {.waits = 5, .wait_ms = 40});
  CHECK(Run("restarted", broker, server) == "errno 77\nconnect 0\nhandled 1\n");
  CHECK(broker.withdrawn() == 0);
}

TEST_CASE("handlers of both kinds are told apart") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  broker.Set(Type::kConnect, kForEver, 1);
  Probe probe("interrupted-late", server.port(), In(broker));
  broker.AwaitWaiting(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(broker.waiting() == 1);
  probe.Signal(SIGUSR1);
  broker.AwaitWaiting(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  broker.Refuse(Reason::kAcquireTimeout);
  CHECK(probe.Finish() == Line("connect", EINTR) + "handled 1\n" + Line("again", ETIMEDOUT));
}

TEST_CASE("SO_SNDTIMEO holds for the wait and the connection together") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  SECTION("it ends while the broker waits") {
    broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
    broker.Set(Type::kConnect, kForEver, 1);
  }
  SECTION("it ends while the kernel waits") {
    broker.Set(Type::kConnect, {.waits = 1, .wait_ms = 250});
  }
  CHECK(Run("send-timeout", broker, server) == kTimedOut);
}

TEST_CASE("with SO_SNDTIMEO any handler ends the wait") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  broker.Set(Type::kConnect, kForEver, 1);
  CHECK(Run("timeout-restarted", broker, server) == Line("connect", EINTR) + "timeout 10000\n");
  CHECK(broker.withdrawn() == 1);
}

TEST_CASE("without the shim, the kernel's own wait ends in the same ways") {
  Server server(Server::Manner::kFull);
  SECTION("a handler without SA_RESTART") {
    Probe probe("interrupted", server.port(), {});
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    server.Open();
    CHECK(probe.Finish() == kInterrupted);
  }
  SECTION("handlers of both kinds") {
    Probe probe("interrupted-late", server.port(), {});
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    probe.Signal(SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    server.Open();
    CHECK(probe.Finish() == Line("connect", EINTR) + "handled 1\nagain 0\n");
  }
  SECTION("SO_SNDTIMEO") {
    CHECK(Probe("send-timeout", server.port(), {}).Finish() == kTimedOut);
    CHECK(Probe("timeout-restarted", server.port(), {}).Finish() ==
          Line("connect", EINTR) + "timeout 10000\n");
  }
}

TEST_CASE("the broker is told of sockets that are not to block, however they were made so") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  Probe probe("nonblocking", server.port(), In(broker));
  for (int i = 0; i < 2; ++i) {
    CHECK(probe.ReadUntil("ready") == Line("connect", EINPROGRESS) + "ready\n");
    CHECK(broker.flags(Type::kConnect) == wire::kRequestNonblocking);
    if (i == 1) broker.Set(Type::kConnect, {.verdict = Verdict::kRefused, .error = ENOKEY});
    probe.Continue();
  }
  CHECK(probe.ReadUntil("ready") == Line("connect", ENOKEY) + "ready\n");
  CHECK(broker.flags(Type::kConnect) == 0);
}

TEST_CASE("a connection in progress that is refused wakes its event loop once, with its errno") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  const Reason reason = GENERATE(Reason::kNoSa, Reason::kAcquireTimeout, Reason::kPeerMismatch,
                                 Reason::kWeakProtection, Reason::kPolicyDiscard);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval, .waits = GENERATE(0, 1)});
  Probe probe("larval", server.port(), In(broker));
  CHECK(probe.ReadUntil("ready") ==
        Line("connect", EINPROGRESS) + "quiet 0\n" + Line("early", EAGAIN) + "ready\n");
  broker.Refuse(reason);
  probe.Continue();
  std::string expected = "woken 1\n" + Line("events", 0x1c);  // OUT, ERR, HUP
  for (const char* call : {"error", "error", "connect", "connect", "read", "readv", "recv",
                           "recvmsg", "send", "sendmsg", "write"}) {
    expected += Line(call, wire::ReasonErrno(reason));
  }
  CHECK(probe.Finish() == expected + Line("getpeername", ENOTCONN));
  CHECK(broker.Count(Type::kConnect) == 1);
}

TEST_CASE("a refusal without an errno of its own still is none of success") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  Probe probe("larval", server.port(), In(broker));
  probe.ReadUntil("ready");
  broker.Refuse(GENERATE(Reason::kNone, static_cast<Reason>(999)));
  probe.Continue();
  CHECK(probe.Finish().find(Line("error", EACCES) + Line("error", EACCES)) != std::string::npos);
}

TEST_CASE("a connection in progress that gets its keys is made") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  Probe probe("larval", server.port(), In(broker));
  probe.ReadUntil("ready");
  server.Open();
  probe.Continue();
  CHECK(probe.Finish().starts_with("woken 1\nevents 4\nerror 0\nerror 0\nconnect 0\n" +
                                   Line("connect", EISCONN) + Line("read", EAGAIN)));
}

TEST_CASE("a connection that the kernel refuses needs no keys: the broker is told") {
  FakeBroker broker;
  Server server;
  const Verdict verdict = GENERATE(Verdict::kLarval, Verdict::kLatched);
  broker.Set(Type::kConnect, {.verdict = verdict});
  CHECK(Run("connect-fails", broker, server) ==
        Line("connect", ENETUNREACH) + Line("connect", ENOKEY));
  CHECK(broker.Count(Type::kRelease) == (verdict == Verdict::kLarval ? 2 : 0));
}

TEST_CASE("a connection in progress is no answer to listen") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kListen, {.verdict = Verdict::kLarval});
  CHECK(Run("accept", broker, server) == Line("listen", EACCES));
}

TEST_CASE("twenty threads wait at the same time") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, kForEver);
  Probe probe("wait-together", server.port(), In(broker));
  broker.AwaitWaiting(20);
  CHECK(broker.waiting() == 20);
  broker.Decide({});
  CHECK(probe.Finish() == "good 20\nfew more 1\n");
  CHECK(broker.withdrawn() == 0);
}

TEST_CASE("a thread that is cancelled while it waits ends when that is over, and leaves nothing") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, kForEver, 1);
  Probe probe("cancel-connect", server.port(), In(broker));
  probe.ReadUntil("ready");
  broker.AwaitWaiting(1);
  probe.Continue();
  CHECK(probe.ReadUntil("ready") == "cancel 0\nready\n");
  CHECK(broker.waiting() == 1);
  broker.Decide({});
  probe.Continue();
  CHECK(probe.Finish() == "join 0\ncancelled 1\nlater 0\nmore 0\n");
  CHECK(broker.Count(Type::kConnect) == 2);
}

TEST_CASE("a child asks on its own while its parent waits, and does not hold up a withdrawal") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, kForEver, 1);
  Probe probe("wait-fork", server.port(), In(broker));
  probe.ReadUntil("ready");
  broker.AwaitWaiting(1);
  probe.Continue();
  CHECK(probe.ReadUntil("ready") == "child 0\nready\n");
  CHECK(broker.waiting() == 1);
  const bool interrupted = GENERATE(true, false);
  if (!interrupted) broker.Decide({});
  probe.Continue();
  const std::string output = probe.ReadUntil("ready");
  CHECK((output == "thread 0\nready\n" || output == Line("thread", EINTR) + "ready\n"));
  broker.AwaitWaiting(0);
  CHECK(broker.withdrawn() == (interrupted ? 1 : 0));
  probe.Continue();
  CHECK(probe.Finish() == "status 0\n");
}

TEST_CASE("what takes the place of a connection that waits is not read") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {.waits = 1000, .wait_ms = 50}, 1);
  Probe probe("wait-dup", server.port(), In(broker));
  probe.ReadUntil("ready");
  broker.AwaitWaiting(1);
  probe.Continue();
  probe.ReadUntil("ready");
  probe.Continue();
  CHECK(probe.Finish() == "connect 0\nread 0\noctets 4\n");
  CHECK(broker.withdrawn() == 1);
}

}  // namespace
}  // namespace latchkey::testing
