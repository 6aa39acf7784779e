// Every way in and out of a socket: what the program sees is what it sees without the shim, and
// whatever opens a connection is asked about.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

std::string Bare(const std::string& name, const Server& server) {
  return Probe(name, server.port(), {}).Finish();
}

TEST_CASE("libc's other names of connect, close and dup2 go the same way") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("road-names", broker, server) ==
        Line("connect", EKEYREJECTED) + "same 0\n" + Line("connect", EKEYREJECTED));
  CHECK(broker.Count(Type::kAttach) == 1);
}

TEST_CASE("who asks for MPTCP gets TCP, unless nothing is ever to be protected") {
  FakeBroker broker;
  Server server;
  SECTION("rules") {
    CHECK(Run("road-mptcp", broker, server) == Line("protocol", IPPROTO_TCP) + "connect 0\n");
    CHECK(broker.Count(Type::kConnect) == 1);
  }
  SECTION("no session: who knows") {
    broker.ForgetSession();
    CHECK(Run("road-mptcp", broker, server).starts_with(Line("protocol", IPPROTO_TCP)));
  }
  SECTION("no rule") {
    broker.page().flags = wire::kPageNoRules;
    broker.page().otherwise = wire::Settle::kBypass;
    CHECK(Run("road-mptcp", broker, server) == Bare("road-mptcp", server));
  }
}

TEST_CASE("MPTCP's sockets that no hook saw made neither connect nor listen") {
  FakeBroker broker;
  Server server;
  // A kernel without MPTCP makes none.
  const int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
  const int made = fd < 0 ? errno : 0;
  if (fd >= 0) close(fd);
  const int refused = fd < 0 ? EBADF : EPROTONOSUPPORT;
  CHECK(Run("road-mptcp-past", broker, server) == Line("socket", made) + Line("connect", refused) +
                                                      Line("socket", made) +
                                                      Line("listen", refused));
  CHECK(broker.Count(Type::kConnect) == 0);
  CHECK(broker.Count(Type::kListen) == 0);
}

TEST_CASE("accept takes and refuses the pointers that the kernel does") {
  FakeBroker broker;
  Server server;
  const std::string expected = "none 0\nno address 0\n" + Line("no length", EFAULT) +
                               Line("bad length", EFAULT) + Line("negative", EINVAL) +
                               Line("constant", EFAULT) + "brief 0\nlength 16\n" + "port 0\n" +
                               Line("family", AF_INET) + "more 0\n";
  CHECK(Bare("road-accept", server) == expected);
  CHECK(Run("road-accept", broker, server) == expected);
  CHECK(broker.Count(Type::kAccept) == 7);
}

TEST_CASE("children of vfork that connect leave their parent's connection alone") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-vfork", broker, server) == "child 0\nchild 0\nchild 0\nconnect 0\nmore 0\n");
  CHECK(broker.Count(Type::kConnect) == 5);
  CHECK(broker.Count(Type::kAttach) == 4);
}

TEST_CASE("children that libc's handlers know nothing of are asked about") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("road-fork", broker, server) ==
        Line("child", EKEYREJECTED) + Line("connect", EKEYREJECTED));
  CHECK(broker.Count(Type::kConnect) == 5);
}

TEST_CASE("a child of a child of a child has one connection to the broker") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-generations", broker, server) == "connect 0\nmore 0\n");
  CHECK(broker.Count(Type::kAttach) == 6);
}

TEST_CASE("a child with its parent's number, in a PID namespace of its own, asks on its own") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-same-number", broker, server) == "number 1\nconnect 0\nnumber 1\nconnect 0\n");
  CHECK(broker.Count(Type::kAttach) == 3);
}

TEST_CASE("a daemon that changes its root goes on asking") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-chroot", broker, server) == "chroot 0\ngood 80\nstatus 0\n");
  CHECK(broker.Count(Type::kConnect) == 80);
}

TEST_CASE("what fails to replace the connection leaves it as it is") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-dup", broker, server) == "all 1\nconnect 0\nmore 0\n");
  CHECK(broker.Count(Type::kAttach) == 1);
}

TEST_CASE("sockets that go to other processes and come from them are asked about there") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("road-passed", broker, server) ==
        Line("received", EKEYREJECTED) + Line("came", EKEYREJECTED) + Line("black", EKEYREJECTED));
  CHECK(broker.Count(Type::kConnect) == 3);
}

TEST_CASE("whatever road closes a socket, the next of its number is asked about") {
  FakeBroker broker;
  Server server;
  CHECK(Run("road-closed", broker, server) ==
        "connect 0\nfclose 0\nreused 1\nconnect 0\nclose 0\nreused 1\nconnect 0\nclose_range 0\n" +
            Line("close", EBADF));
  CHECK(broker.Count(Type::kConnect) == 3);
}

TEST_CASE("a connect that leaves its SYN to the first write is asked about") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("road-fast-open", broker, server) == "option 0\n" + Line("connect", EKEYREJECTED));
}

TEST_CASE("children of a listener that was there before are asked about") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kAccept, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("road-inherited", broker, server) == Line("accept", EAGAIN));
  CHECK(broker.Count(Type::kAccept) == 1);
}

TEST_CASE("handlers connect on top of connects, and errno is kept") {
  FakeBroker broker;
  Server server;
  CHECK(Run("moment-signals", broker, server) == "bad 0\nfew more 1\n");
}

TEST_CASE("before the constructor only this host can be reached") {
  FakeBroker broker;
  Server server;
  CHECK(Run("moment-early", broker, server) ==
        "done 1\n" + Line("close", EBADF) + "here 0\n" + Line("away", EHOSTUNREACH) +
            Line("listen", EHOSTUNREACH) + "dup 0\nfclose 0\nconnect 0\n");
}

TEST_CASE("when all but the program's last destructors have run, it is asked as before") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("moment-late", broker, server) == Line("connect", EKEYREJECTED) + "close 0\n");
}

}  // namespace
}  // namespace latchkey::testing
