// The cmsg LATCHKEY_LATCH under the shim, and the options of UDP sockets. Needs root, for marks.
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "policy/model/latch.h"
#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

struct Telling {
  FakeBroker broker;
  Server server;

  explicit Telling(bool connected = false) {
    broker.page().otherwise = wire::Settle::kBypass;
    broker.Set(Type::kLatches, {.verdict = Verdict::kBypass});
    broker.SetTold(connected);
  }
  std::string Run(const std::string& name) const { return testing::Run(name, broker, server); }
};

TEST_CASE("what is received comes with its latch, by every number of the socket") {
  const Telling telling;
  CHECK(telling.Run("latches-received") ==
        "before 0\nerrno 77\nset 0\nafter 1\nmarks 0\n"
        "recvmsg a latch 7\nrecvmsg b latch 0\nrecvmmsg 2\nof them c latch 0\nof them d latch 7\n"
        "little e cut\nlittle e cut\nsyscall f latch 7\ndup g latch 7\n"
        "own 0\nmarks 1\nown h 1/36 latch 7\nnone 0\nleft i 1/36\n");
  CHECK(telling.broker.Count(Type::kLatches) == 3);
  CHECK(telling.broker.flags(Type::kLatches) == wire::kRequestMarks);
}

TEST_CASE("what else comes with a datagram is there beside its latch, and no error has one") {
  const Telling telling;
  CHECK(telling.Run("latches-beside") ==
        "set 0\nall a 1/29 latch 7 0/8\nall a 1/29 latch 7 0/8\nbrief b latch 7\ntruncated 1\n"
        "recvmmsg 1\nfirst c latch 7\nsegments d latch 7 17/104\nsend 0\npoll 1\nerror x 0/11\n");
}

TEST_CASE("who asked for marks alone has them, and names no latch") {
  const Telling telling;
  CHECK(telling.Run("latches-others") == "marks a 1/36\n" + Line("send", EPERM) +
                                             Line("tcp", ENOPROTOOPT) + Line("two", EINVAL) +
                                             Line("null", EFAULT) + Line("short", EINVAL) +
                                             Line("pointer", EFAULT) + Line("control", EFAULT));
}

TEST_CASE("of many that are received at once the last has its latch, too") {
  const Telling telling;
  CHECK(telling.Run("latches-many") == "room 0\nset 0\nown 0\nrecvmmsg 300\nlast z 1/36 latch 7\n");
}

TEST_CASE("where nobody asked for latches nothing is sent under one") {
  const Telling telling;
  CHECK(telling.Run("latches-unasked") ==
        Line("send", EPERM) + "sendmmsg 1\n" + Line("rest", EPERM) + "other 0\n" + "came 2\n");
  CHECK(telling.broker.Count(Type::kLatches) == 0);
}

TEST_CASE("without a session the kernel ignores it") {
  Telling telling;
  telling.broker.ForgetSession();
  CHECK(telling.Run("latches-unasked") == "send 0\nsendmmsg 2\nrest 0\nother 0\ncame 5\n");
}

TEST_CASE("under another's latch, a broken one, or none, nothing is sent") {
  const Telling telling;
  CHECK(telling.Run("latches-sent") == "set 0\nerrno 77\nsend 0\n" + Line("send", ECONNRESET) +
                                           Line("send", EPERM) + Line("send", ECONNRESET) +
                                           Line("elsewhere", EPERM) + Line("nowhere", EPERM) +
                                           Line("short", EINVAL) + "sendmmsg 2\nlength 1\n" +
                                           Line("rest", ECONNRESET) + "came 3\n");
}

TEST_CASE("a connection has one latch, both ways") {
  const Telling telling(/*connected=*/true);
  CHECK(telling.Run("latches-connected") ==
        "set 0\nsend 0\n" + Line("broken", EPERM) + "back x latch 7\n");
}

TEST_CASE("a broker that refuses, or is gone, is said") {
  Telling telling;
  telling.broker.Set(Type::kLatches, {.verdict = Verdict::kRefused, .error = EOPNOTSUPP});
  CHECK(telling.Run("latches-connected").starts_with(Line("set", EOPNOTSUPP)));
  telling.broker.Stop();
  CHECK(telling.Run("latches-connected").starts_with(Line("set", EHOSTUNREACH)));
}

TEST_CASE("options of a UDP socket, and of its peers by their ids") {
  Telling telling;
  Latch latch;
  latch.id = 7;
  latch.state = State::kEstablished;
  latch.identity = {"alice", "bob", "pubkey"};
  telling.broker.SetLatch(ToWire(latch));
  telling.broker.Set(Type::kWish, {.verdict = Verdict::kBypass});
  CHECK(telling.Run("latches-asked") ==
        "state 2\npeer info 0\n1024: alice\n" + Line("short", EINVAL) + Line("tcp", ENOPROTOOPT) +
            Line("null", EFAULT) + Line("policy", EPERM) + "request 0\n" + Line("bound", EISCONN));
  CHECK(telling.broker.Count(Type::kInquirePeer) == 1);
}

}  // namespace
}  // namespace latchkey::testing
