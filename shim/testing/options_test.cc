// SOL_LATCHKEY under the shim: every option, every errno, and what is not ours.
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <string>

#include "policy/model/latch.h"
#include "shim/latchkey.h"
#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

wire::LatchRecord Example() {
  Latch latch;
  latch.id = 7;
  latch.state = State::kEstablished;
  latch.identity = {"alice", "bob", "pubkey"};
  latch.suspends = true;
  return ToWire(latch);
}

TEST_CASE("every option of a latched socket is answered, by name and by number") {
  FakeBroker broker;
  Server server;
  broker.SetLatch(Example());
  broker.SetBinding(0, "type:octets");
  const std::string each =
      "state 2\ndisposition 2\npeer alice\nlocal bob\nbinding type:octets\ninfo 0\n1024 of 1024: "
      "alice\n";
  CHECK(Run("latch", broker, server) == "connect 0\n" + each + each);
  CHECK(broker.Count(Type::kInquire) == 10);
  CHECK(broker.Count(Type::kBinding) == 2);
}

TEST_CASE("a socket without a latch is ENOTCONN, and what is not known of one is ENODATA") {
  FakeBroker broker;
  Server server;
  std::string each;
  SECTION("no latch") {
    broker.SetBinding(ENOTCONN, "");
    each = "state -107\ndisposition -107\npeer -107\nlocal -107\nbinding -107\n";
    each += Line("info", ENOTCONN) + "1024 of 0: \n";
  }
  SECTION("a listener, or in clear") {
    wire::LatchRecord record = Example();
    record.flags = wire::kLatchClear;
    record.peer_id[0] = record.local_id[0] = '\0';
    broker.SetLatch(record);
    each = "state 5\ndisposition 1\npeer -61\nlocal -61\nbinding -61\ninfo 0\n1024 of 1024: \n";
  }
  CHECK(Run("latch", broker, server) == "connect 0\n" + each + each);
}

TEST_CASE("short buffers: ERANGE and the length for octets, a prefix of a structure, else EINVAL") {
  FakeBroker broker;
  Server server;
  broker.SetLatch(Example());
  broker.SetBinding(0, "type:octets");
  CHECK(Run("latch-short", broker, server) ==
        "connect 0\n"
        "1 0: 22 0 in bounds\n1 3: 22 3 in bounds\n1 8: 0 4 in bounds\n"
        "2 0: 34 5 in bounds\n2 3: 34 5 in bounds\n2 8: 0 5 in bounds\n"
        "4 0: 22 0 in bounds\n4 3: 22 3 in bounds\n4 8: 0 8 in bounds\n"
        "6 0: 22 0 in bounds\n6 3: 22 3 in bounds\n6 8: 0 4 in bounds\n"
        "7 0: 34 11 in bounds\n7 3: 34 11 in bounds\n7 8: 34 11 in bounds\n");
}

TEST_CASE("bad pointers are EFAULT, options that are none ENOPROTOOPT, nothing crashes") {
  FakeBroker broker;
  Server server;
  broker.SetLatch(Example());
  std::string expected = "connect 0\n";
  for (int i = 0; i < 3; ++i) {
    for (const char* what : {"value", "read-only", "null", "length"}) {
      expected += Line(what, EFAULT);
    }
    // It says 0: too small for a number, and for a text there is no place to say so.
    expected += Line("read-only length", i == 1 ? EFAULT : EINVAL);
    expected += Line("negative", EINVAL);
  }
  for (int i = 0; i < 4; ++i) expected += Line("option", ENOPROTOOPT);
  for (int i = 0; i < 4; ++i) expected += Line("set", ENOPROTOOPT);
  CHECK(Run("latch-bad", broker, server) == expected);
}

TEST_CASE("what is neither TCP nor UDP is the kernel's to answer") {
  FakeBroker broker;
  Server server;
  CHECK(Run("latch-others", broker, server) == Probe("latch-others", server.port(), {}).Finish());
  CHECK(broker.Count(Type::kInquire) == 0);
  CHECK(broker.Count(Type::kWish) == 0);
}

TEST_CASE("a broker that is gone, or has no word for it, tells nothing") {
  FakeBroker broker;
  Server server;
  broker.page().otherwise = wire::Settle::kBypass;
  const std::string none =
      "state -113\ndisposition -113\npeer -113\nlocal -113\nbinding -113\ninfo 113\n1024 of 0: \n";
  SECTION("gone") {
    broker.Stop();
    // Without a session loopback alone is let through.
    CHECK(Run("latch", broker, server) == "connect 0\n" + none + none);
  }
  SECTION("another's session") {
    broker.ForgetSession();
    CHECK(Run("latch", broker, server) == "connect 0\n" + none + none);
  }
}

TEST_CASE("a binding that is longer than any is none") {
  FakeBroker broker;
  Server server;
  broker.SetLatch(Example());
  broker.SetBinding(0, "");
  CHECK(Run("latch", broker, server).find("binding -61\n") != std::string::npos);
}

TEST_CASE("a request is the broker's to take, before the socket is used") {
  FakeBroker broker;
  Server server;
  SECTION("taken") {
    broker.Set(Type::kWish, {Verdict::kBypass, 0});
    CHECK(Run("request", broker, server) ==
          "errno 77\nrequest 0\nconnect 0\n" + Line("late", EISCONN) + Line("syscall", 0));
    CHECK(broker.wish() == "by number");
    CHECK(broker.Count(Type::kWish) == 2);
  }
  SECTION("refused") {
    const int error = GENERATE(EINVAL, EALREADY, EACCES);
    broker.Set(Type::kWish, {Verdict::kRefused, error});
    CHECK(Run("request", broker, server) ==
          Line("request", error) + "connect 0\n" + Line("late", EISCONN) + Line("syscall", error));
  }
  SECTION("a verdict that means nothing here is a refusal") {
    broker.Set(Type::kWish, {Verdict::kLatched, 0});
    CHECK(Run("request", broker, server) == Line("request", EACCES) + "connect 0\n" +
                                                Line("late", EISCONN) + Line("syscall", EACCES));
  }
}

TEST_CASE("a socket with a request is asked about when it has lost the mark, too") {
  FakeBroker broker;
  Server server;
  broker.page().otherwise = wire::Settle::kBypass;
  broker.page().flags = wire::kPageNoRules | wire::kPageRequests;
  broker.Set(Type::kWish, {Verdict::kBypass, 0});
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("request", broker, server) == "errno 77\nrequest 0\n" + Line("connect", EKEYREJECTED) +
                                              Line("late", 0) + Line("syscall", 0));
}

TEST_CASE("what cannot be a request does not reach the broker") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kWish, {Verdict::kBypass, 0});
  CHECK(Run("request-bad", broker, server) == Line("empty", EINVAL) + Line("long", E2BIG) +
                                                  Line("nul", EINVAL) + Line("pointer", EFAULT) +
                                                  Line("negative", EINVAL) + Line("longest", 0));
  CHECK(broker.Count(Type::kWish) == 1);
}

TEST_CASE("a socket that bears the mark is asked about, whatever the page says") {
  FakeBroker broker;
  Server server;
  broker.page().otherwise = wire::Settle::kBypass;
  broker.page().flags = wire::kPageNoRules | wire::kPageRequests;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  broker.Set(Type::kListen, {Verdict::kRefused, EPROTO});
  const std::string out = Run("marked", broker, server);
  // Marks need CAP_NET_ADMIN, or CAP_NET_RAW.
  const std::string marked =
      Line("mark", 0) + Line("connect", EKEYREJECTED) + Line("mark", 0) + Line("listen", EPROTO);
  const std::string unmarked =
      Line("mark", EPERM) + "connect 0\n" + Line("mark", EPERM) + "listen 0\n";
  CHECK((out == marked || out == unmarked));
}

}  // namespace
}  // namespace latchkey::testing
