// UDP sockets under the shim: what goes to the broker, and what the program sees.
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Settle;
using wire::Type;
using wire::Verdict;

void SetRule(FakeBroker& broker, uint8_t protocol, Settle settle) {
  broker.page().rules[0] = {};
  broker.page().rules[0].protocol = protocol;
  broker.page().rules[0].settle = settle;
  broker.page().rules[0].port_high = 65535;
  broker.page().rule_count = 1;
  broker.page().flags = wire::kPageDatagramRules;
}

// Nothing but the port above the server's is let pass unasked.
void LetNextPass(FakeBroker& broker, const Server& server) {
  SetRule(broker, 0, Settle::kBypass);
  broker.page().rules[0].port_low = broker.page().rules[0].port_high =
      static_cast<uint16_t>(server.port() + 1);
}

TEST_CASE("where no rule is about datagrams none is looked at") {
  FakeBroker broker;
  Server server;
  SetRule(broker, IPPROTO_UDP, Settle::kProtect);
  broker.page().flags = 0;
  CHECK(Run("udp-sends", broker, server).starts_with("sendto 0\n"));
}

TEST_CASE("of many sent at once no more is looked at than the kernel takes") {
  FakeBroker broker;
  Server server;
  CHECK(Run("udp-many", broker, server) == "sendmmsg 1024\n");
}

TEST_CASE("where a rule protects, a datagram without a connection is the broker's to refuse") {
  FakeBroker broker;
  Server server;
  SetRule(broker, IPPROTO_UDP, Settle::kProtect);
  broker.Set(Type::kPeer, {Verdict::kRefused, EPROTO});
  CHECK(Run("udp-sends", broker, server) ==
        Line("sendto", EPROTO) + Line("sendmsg", EPROTO) + Line("sendmmsg", EPROTO) +
            Line("unspecified", EPROTO) + "connect 0\nsend 0\n");
  CHECK(broker.Count(Type::kPeer) == 4);
  CHECK(broker.Count(Type::kConnect) == 1);
}

TEST_CASE("a page that goes on being rewritten lets none leave either") {
  FakeBroker broker;
  Server server;
  SetRule(broker, 0, Settle::kBypass);
  broker.page().generation = 1;
  broker.Set(Type::kConnect, {Verdict::kRefused, ENOKEY});
  broker.Set(Type::kPeer, {Verdict::kRefused, ENOKEY});
  CHECK(Run("udp-sends", broker, server).starts_with(Line("sendto", ENOKEY)));
}

TEST_CASE("where a rule discards, nothing leaves, whatever the broker says") {
  FakeBroker broker;
  Server server;
  SetRule(broker, 0, Settle::kDiscard);
  CHECK(Run("udp-sends", broker, server).starts_with(Line("sendto", EACCES)));
  CHECK(Run("udp-again", broker, server).starts_with(Line("first", EACCES)));
}

TEST_CASE("rules of TCP are not about datagrams") {
  FakeBroker broker;
  Server server;
  SetRule(broker, IPPROTO_TCP, Settle::kDiscard);
  broker.page().otherwise = Settle::kBypass;
  // What nobody listens to is refused by ICMP, and told by a later call.
  CHECK(Run("udp-sends", broker, server).starts_with("sendto 0\n"));
  CHECK(broker.Count(Type::kConnect) == 0);
}

TEST_CASE("each connect is asked about, the one that the page would settle too; errno is kept") {
  FakeBroker broker;
  Server server;
  LetNextPass(broker, server);
  CHECK(Run("udp-again", broker, server) == "errno 77\nfirst 0\nsecond 0\ndisconnect 0\n");
  CHECK(broker.Count(Type::kConnect) == 2);
  CHECK(broker.Count(Type::kRelease) == 1);
}

TEST_CASE("so is one by another number of the socket, and one of which a child of vfork closed") {
  FakeBroker broker;
  Server server;
  LetNextPass(broker, server);
  CHECK(Run(GENERATE(as<std::string>(), "udp-dup", "udp-fcntl", "udp-vfork"), broker, server) ==
        "first 0\nsecond 0\n");
  CHECK(broker.Count(Type::kConnect) == 2);
}

TEST_CASE("a UDP connect that the broker refuses fails with its errno") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {Verdict::kRefused, EKEYREJECTED});
  CHECK(Run("udp-again", broker, server).starts_with(Line("first", EKEYREJECTED)));
}

TEST_CASE("a broken latch is ECONNRESET in every call, after the shutdown that wakes them too") {
  FakeBroker broker;
  Server server;
  broker.SetTrouble(wire::Trouble::kBroken);
  std::string all = "connect 0\n";
  for (const char* call :
       {"recv", "recvfrom", "recvmsg", "read", "readv", "__read_chk", "__recv_chk",
        "__recvfrom_chk", "recvmmsg", "send", "sendto", "sendmsg", "sendmmsg", "write", "writev"}) {
    all += Line(call, ECONNRESET);
  }
  CHECK(Run("udp-talks", broker, server) == all);
}

TEST_CASE("without a session no datagram leaves this host") {
  FakeBroker broker;
  Server server;
  broker.ForgetSession();
  CHECK(Run("udp-sends", broker, server).starts_with("sendto 0\n"));
}

}  // namespace
}  // namespace latchkey::testing
