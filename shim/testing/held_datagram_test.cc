// UDP sockets that a broker holds: it is told once, asked about each peer once, and what the kernel
// refuses then is asked about anew. Needs root, for marks and socket policies.
#include <netinet/in.h>
#include <signal.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"
#include "shim/testing/hold.h"

namespace latchkey::testing {
namespace {

using wire::Settle;
using wire::Type;
using wire::Verdict;

constexpr Answer kRefusal{.verdict = Verdict::kRefused, .error = EKEYREJECTED};
constexpr Answer kUnheld{.verdict = Verdict::kBypass};

// A broker whose policy has this rule of UDP, and whose page says these flags.
struct Held {
  FakeBroker broker;
  Server server;

  explicit Held(Settle settle, uint32_t flags) {
    wire::Page& page = broker.page();
    page.rules[0] = {};
    page.rules[0].protocol = IPPROTO_UDP;
    page.rules[0].settle = settle;
    page.rules[0].port_high = 65535;
    page.rule_count = 1;
    page.otherwise = Settle::kBypass;
    page.flags = flags;
  }
  // To the port above the server's something is wanting.
  void SetHold(Want want = Want::kEntry) {
    broker.SetHold(static_cast<uint16_t>(server.port() + 1), want);
  }
  std::string Run(const std::string& name) const { return testing::Run(name, broker, server); }
  int holds() const { return broker.Count(Type::kHold); }
  int peers() const { return broker.Count(Type::kPeer); }
};

constexpr uint32_t kHold = wire::kPageHold;
constexpr uint32_t kRules = wire::kPageDatagramRules;
constexpr uint32_t kDeny = wire::kPageDenyDatagrams;

const std::string kOthers = "tcp 0\n" + Line("pointer", EFAULT);

TEST_CASE("a bind is told to the broker where a rule is about what comes in, and nowhere else") {
  Held here(Settle::kBypass, 0);
  CHECK(here.Run("held-bind") ==
        "errno 77\nbind 0\n" + Line("again", EINVAL) + "syscall 0\n" + kOthers + "raw 0\n");
  CHECK(here.holds() == 0);
  here.broker.page().flags = kHold;
  CHECK(here.Run("held-bind") ==
        "errno 77\nbind 0\n" + Line("again", EINVAL) + "syscall 0\n" + kOthers + "raw 0\n");
  CHECK(here.holds() == 2);
  CHECK(here.broker.remote(Type::kHold).family == 0);
}

TEST_CASE("where the default is to discard, too; what is neither UDP nor TCP is refused still") {
  Held here(Settle::kBypass, kDeny);
  CHECK(here.Run("held-bind") == "errno 77\nbind 0\n" + Line("again", EINVAL) + "syscall 0\n" +
                                     kOthers + Line("raw", EACCES));
  CHECK(here.holds() == 2);
}

TEST_CASE("a bind that the broker refuses fails with its errno") {
  Held here(Settle::kBypass, kHold);
  here.broker.Set(Type::kHold, {Verdict::kRefused, EPROTO});
  CHECK(here.Run("held-bind") == Line("bind", EPROTO) + Line("again", EINVAL) +
                                     Line("syscall", EPROTO) + kOthers + "raw 0\n");
}

TEST_CASE("what a held socket sends is not asked about, but where the kernel refuses it") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  CHECK(here.Run("held-sends") ==
        "errno 77\nsend 0\nerrno 77\nsend 0\nerrno 77\nsend 0\nother 0\nother 0\n");
  CHECK(here.holds() == 1);
  CHECK(here.peers() == 1);
  CHECK(here.broker.remote(Type::kPeer).port == here.server.port() + 1);
  CHECK(here.broker.remote(Type::kPeer).family == AF_INET);
}

TEST_CASE("a peer that the broker refuses is asked about each time") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  here.broker.Set(Type::kPeer, kRefusal);
  CHECK(
      here.Run("held-sends").ends_with(Line("other", EKEYREJECTED) + Line("other", EKEYREJECTED)));
  CHECK(here.peers() == 2);
}

TEST_CASE("one that it grants and the kernel refuses still is tried once more, and no oftener") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  here.broker.Set(Type::kPeer, kUnheld);  // nothing is brought
  CHECK(here.Run("held-sends").ends_with(Line("other", EPERM) + Line("other", EPERM)));
  CHECK(here.peers() == 2);
}

TEST_CASE("that keys are wanting is asked about, too, and is never EAGAIN") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold(Want::kKeys);
  CHECK(here.Run("held-sends").ends_with("other 0\nother 0\n"));
  CHECK(here.peers() == 1);
  here.broker.Set(Type::kPeer, kUnheld);
  CHECK(here.Run("held-sends").ends_with(Line("other", ENOKEY) + Line("other", ENOKEY)));
}

TEST_CASE("a socket that nobody bound is held by its first send; then it is as one that was") {
  Held here(Settle::kProtect, kRules);
  here.SetHold();
  CHECK(here.Run("held-unbound") == "send 0\nsend 0\nother 0\nother 0\n");
  CHECK(here.holds() == 0);
  CHECK(here.peers() == 2);
}

TEST_CASE("where a rule is about what comes in, its first send is told wherever it goes to") {
  Held here(Settle::kBypass, kHold);
  here.broker.Set(Type::kPeer, kUnheld);
  CHECK(here.Run("held-unbound") == "send 0\nsend 0\nother 0\nother 0\n");
  CHECK(here.peers() == 1);
  here.broker.Set(Type::kPeer, kRefusal);
  CHECK(here.Run("held-unbound").starts_with(Line("send", EKEYREJECTED)));
}

TEST_CASE("one that need not be held is asked about all the same where a rule protects") {
  Held here(Settle::kProtect, kHold | kRules);
  here.broker.page().rules[0].port_low = here.broker.page().rules[0].port_high =
      static_cast<uint16_t>(here.server.port() + 1);
  here.broker.Set(Type::kHold, kUnheld);
  here.broker.Set(Type::kPeer, kRefusal);
  CHECK(here.Run("held-sends") == "errno 77\nsend 0\nerrno 77\nsend 0\nerrno 77\nsend 0\n" +
                                      Line("other", EKEYREJECTED) + Line("other", EKEYREJECTED));
  CHECK(here.peers() == 2);
}

TEST_CASE("the rest of a datagram whose first part is lost is not sent again") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  const std::string refused = "part 0\n" + Line("rest", EPERM) + Line("other", EPERM);
  CHECK(here.Run("parts") == refused);
  CHECK(here.peers() == 1);  // about the other
  CHECK(here.Run("parts-corked") == "cork 0\n" + refused);
  CHECK(here.peers() == 2);
}

const std::string kWays[] = {"sendto", "sendmsg", "sendmmsg", "segments",
                             "more",   "rest",    "mapped",   "unspecified"};

TEST_CASE("whatever way it is sent, the broker decides") {
  Held here(Settle::kProtect, kRules);
  std::string all;
  for (const std::string& way : kWays) all += way + " 0\n";
  CHECK(here.Run("held-ways") == all + Line("connected", EACCES));
  // The corked one twice, since nobody holds it; the connected one, under no latch, not at all.
  CHECK(here.peers() == 8);
  here.broker.Set(Type::kPeer, kRefusal);
  std::string none;
  for (const std::string& way : kWays) none += Line(way, EKEYREJECTED);
  CHECK(here.Run("held-ways").starts_with(none));
}

TEST_CASE(
    "of many at once those before the first blocked one are sent, and the next call goes on") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  CHECK(here.Run("held-batch") == "sent 1\nerrno 77\nrest 2\n");
  CHECK(here.peers() == 1);
  here.broker.Set(Type::kPeer, kRefusal);
  CHECK(here.Run("held-batch") == "sent 1\nerrno 77\n" + Line("rest", -EKEYREJECTED));
}

TEST_CASE("what was held is forgotten with its number, however it is taken away") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  here.broker.Set(Type::kPeer, kRefusal);
  std::string all;
  for (const char* way : {"close", "close by syscall", "dup2", "dup3", "close_range",
                          "dup2 by syscall", "dup3 by syscall", "close_range by syscall",
                          "closefrom", "fclose", "close unseen", "vfork"}) {
    all += Line(way, EKEYREJECTED);
  }
  CHECK(here.Run("held-numbers") == all + "before 0\n" + Line("unshare", EKEYREJECTED));
}

TEST_CASE("by whichever thread it is closed, and whichever gets the number") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  here.broker.Set(Type::kPeer, kRefusal);
  CHECK(here.Run("held-threads") == "sent 0\nrefused 400\n");
}

TEST_CASE("dissolved, it may have another port, and is asked about with the next send") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  CHECK(here.Run("held-disconnect") == "send 0\ndisconnect 0\nsend 0\nsend 0\n");
  CHECK(here.broker.Count(Type::kRelease) == 1);
  CHECK(here.peers() == 1);
}

TEST_CASE(
    "one whose connect fails is the broker's to hold anew, and asked about with the next send") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  here.broker.Set(Type::kConnect, kUnheld);
  CHECK(here.Run("held-unconnected") == "send 0\n" + Line("connect", EACCES) + "send 0\n");
  CHECK(here.broker.Count(Type::kConnect) == 1);
  CHECK(here.broker.Count(Type::kRelease) == 1);
  CHECK(here.peers() == 1);
}

TEST_CASE("a program takes off neither its filter nor its mark") {
  Held here(Settle::kBypass, kHold);
  here.SetHold();
  CHECK(here.Run("held-filters") == Line("attach", EPERM) + Line("detach", EPERM) +
                                        Line("unlock", EPERM) + Line("mark", EPERM));
}

TEST_CASE("a program may ask for merged datagrams, and gets none once its socket is held") {
  Held here(Settle::kBypass, kHold);
  here.SetHold();
  CHECK(here.Run("held-merges") == "before 0\nis 1\nset 0\nis 0\nby number 0\nis 0\n" +
                                       Line("short", EINVAL) + Line("pointer", EFAULT) +
                                       "free 0\nis 1\n" + Line("tcp", ENOPROTOOPT));
}

TEST_CASE("one that is not to wait says so to the broker") {
  Held here(Settle::kProtect, kRules);
  here.broker.Set(Type::kPeer, {Verdict::kRefused, ETIMEDOUT});
  CHECK(here.Run("held-nonblocking") == Line("dontwait", ETIMEDOUT) + Line("nonblock", ETIMEDOUT));
  CHECK(here.broker.flags(Type::kPeer) == wire::kRequestNonblocking);
}

TEST_CASE("one that may wait does, for as long as it said, or until a signal") {
  Held here(Settle::kProtect, kRules);
  here.broker.Set(Type::kPeer, {.verdict = Verdict::kLatched, .waits = 3});
  CHECK(here.Run("held-unbound").starts_with("send 0\n"));
  CHECK(here.broker.flags(Type::kPeer) == 0);
  here.broker.Set(Type::kPeer, {.verdict = Verdict::kWait, .waits = 1});
  CHECK(here.Run("held-timed") == Line("send", ETIMEDOUT));
  here.broker.AwaitNobody();
  Probe probe("held-signalled", here.server.port(), In(here.broker));
  here.broker.AwaitWaiting(1);
  probe.Signal(SIGUSR1);
  CHECK(probe.Finish() == Line("send", EINTR));
}

TEST_CASE("a message with a mark of its own is not sent on a held socket, those before it are") {
  Held here(Settle::kBypass, kHold);
  here.SetHold();
  const std::string refused = Line("marked", EPERM) + Line("by number", EPERM) +
                              "several 2\nerrno 77\n" + Line("the rest", EPERM);
  // One that is held only as it sends is refused, too.
  CHECK(here.Run("held-marks") == "plain 0\n" + refused + Line("first sent", EPERM));
  // Of no latch it is the program's to mark.
  Held free(Settle::kBypass, 0);
  CHECK(free.Run("held-marks") ==
        "plain 0\nmarked 0\nby number 0\nseveral 3\nerrno 77\nthe rest 0\nfirst sent 0\n");
}

TEST_CASE("a held socket that has nothing to read is in good order") {
  Held here(Settle::kBypass, kHold);
  here.SetHold();
  // Of others' trouble.
  here.broker.page().troubled = 1;
  CHECK(here.Run("held-receives") == Line("recv", EAGAIN) + "send 0\nread 1\n");
}

TEST_CASE("while the broker is gone known peers are talked to, and nobody else") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  Probe probe("held-pauses", here.server.port(), In(here.broker));
  CHECK(probe.ReadUntil("ready") == "send 0\nready\n");
  here.broker.Stop();
  probe.Continue();
  CHECK(probe.Finish() == "send 0\n" + Line("other", EHOSTUNREACH) + Line("new", EHOSTUNREACH) +
                              Line("bind", EHOSTUNREACH));
}

TEST_CASE("a program that came by a held socket otherwise is told once that it is one") {
  Held here(Settle::kProtect, kHold | kRules);
  here.SetHold();
  CHECK(here.Run("held-inherits") == "send 0\nsend 0\nother 0\n");
  CHECK(here.holds() == 1);
  CHECK(here.peers() == 2);
  // Where the page is about no datagram the kernel still refuses.
  Held there(Settle::kBypass, kHold);
  there.SetHold();
  Probe probe("held-inherits", there.server.port(), In(there.broker));
  CHECK(probe.Finish() == "send 0\nsend 0\nother 0\n");
}

}  // namespace
}  // namespace latchkey::testing
