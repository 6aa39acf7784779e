// The rarer calls, and the common ones made by their numbers, through syscall().
#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

TEST_CASE("close_range that only marks leaves everything open, and the connection to the broker") {
  FakeBroker broker;
  Server server;
  CHECK(Run("call-mark-range", broker, server) ==
        "close_range 0\nmore 0\nmarked 1\nbelow 0\nconnect 0\nconnect 0\n");
  CHECK(broker.Count(Type::kAttach) == 1);
}

TEST_CASE("sendfile and splice say ECONNRESET of a broken latch, and else what the kernel says") {
  FakeBroker broker;
  Server server;
  const bool broken = GENERATE(true, false);
  if (broken) broker.SetTrouble(wire::Trouble::kBroken);
  const int sent = broken ? ECONNRESET : EPIPE;
  CHECK(Run("call-moved", broker, server) ==
        "connect 0\n" + Line("sendfile", sent) + Line("sendfile64", sent) + "offsets 0\n" +
            Line("splice to", sent) + Line("splice from", broken ? ECONNRESET : 0) +
            "splice nothing 0\n");
}

constexpr char kAccepted[] =
    "protocol 6\ncloexec 1\nbind 0\nlisten 0\nbacklog 5\nconnect 0\nconnect 0\naccept 0\nsecond "
    "1\n";

TEST_CASE("by number a listener is made and asked about, and a refused child is not seen") {
  FakeBroker broker;
  Server server;
  const bool four = GENERATE(false, true);
  broker.Set(Type::kAccept, {Verdict::kRefused, EKEYREJECTED}, 1);
  CHECK(Run(four ? "number-accept4" : "number-accept", broker, server) ==
        kAccepted + Line("cloexec", four) + Line("nonblocking", four) + "none 0\n");
  CHECK(broker.Count(Type::kListen) == 1);
  CHECK(broker.Count(Type::kAccept) == 3);
}

TEST_CASE("by number data move as by name") {
  FakeBroker broker;
  Server server;
  CHECK(Run("number-stream", broker, server) ==
        "connect 0\nread 1\n" + Line("first", 'h') +
            "readv 4\nsplit 1\nwrite 3\nwritev 10\noctets 13\n");
  CHECK(Run("number-datagrams", broker, server) ==
        "sendto 5\nrecvfrom 5\nthree 1\nfrom 1\nsendmsg 2\nsendmmsg 3\n" + Line("oob", EOPNOTSUPP) +
            "recvmsg 2\n" + Line("bad time", EINVAL) + "recvmmsg 2\nrecvmmsg 2\n");
}

TEST_CASE("by number a broken latch says ECONNRESET") {
  FakeBroker broker;
  Server server;
  broker.SetTrouble(wire::Trouble::kBroken);
  std::string all = "connect 0\n";
  for (const char* call : {"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev",
                           "sendto", "sendmsg", "sendmmsg", "error"}) {
    all += Line(call, ECONNRESET);
  }
  CHECK(Run("number-ended", broker, server) == all + Line("option", EOPNOTSUPP));
}

TEST_CASE("by number the connection to the broker is closed by nobody, and replaced as by name") {
  FakeBroker broker;
  Server server;
  CHECK(
      Run("number-numbers", broker, server) ==
      "connect 0\n" + Line("bad dup2", EBADF) + Line("bad dup3", EBADF) + Line("close", EBADF) +
          "close_range 0\n" + Line("no range", EINVAL) + Line("no flags", EINVAL) +
          "connect 0\ndup2 1\nconnect 0\nother 1\ndup3 1\nflags 1\nconnect 0\noctets 0\nsame 1\n" +
          Line("same", EINVAL));
  CHECK(broker.Count(Type::kAttach) == 3);
}

}  // namespace
}  // namespace latchkey::testing
