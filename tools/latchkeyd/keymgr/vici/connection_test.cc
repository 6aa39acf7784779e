#include "tools/latchkeyd/keymgr/vici/connection.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <string>

namespace latchkey::broker::vici {
namespace {

struct Pair {
  UniqueFd charon;
  Connection connection;

  Pair() {
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    charon.Reset(fds[0]);
    connection = Connection(UniqueFd(fds[1]));
  }
  void Say(const std::string& octets) const {
    REQUIRE(write(charon.get(), octets.data(), octets.size()) ==
            static_cast<ssize_t>(octets.size()));
  }
  std::string Hear(size_t length) const {
    std::string octets(length, '\0');
    REQUIRE(recv(charon.get(), octets.data(), length, MSG_WAITALL) == static_cast<ssize_t>(length));
    return octets;
  }
};

std::string Framed(const Packet& packet) {
  const std::string octets = *EncodePacket(packet);
  std::string framed;
  for (int shift = 24; shift >= 0; shift -= 8) {
    framed += static_cast<char>(octets.size() >> shift & 0xff);
  }
  return framed + octets;
}

using std::string_literals::operator""s;

Packet Event(const std::string& value) {
  Packet packet{PacketType::kEvent, "log", {}};
  packet.message.Add("msg", value);
  return packet;
}

std::string Place(const char* name) {
  const char* directory = std::getenv("TEST_TMPDIR");
  // Sun paths are short, and Bazel's folders are not.
  REQUIRE(chdir(directory != nullptr ? directory : "/tmp") == 0);
  unlink(name);
  return name;
}

UniqueFd Bound(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

TEST_CASE_METHOD(Pair, "Packets go out with their length in front") {
  const Packet request{PacketType::kRequest, "list-sas", {}};
  REQUIRE(connection.Send(request));
  CHECK_FALSE(connection.wants_write());
  CHECK(Hear(Framed(request).size()) == Framed(request));
}

TEST_CASE_METHOD(Pair, "Packets come in one octet at a time, or several at once") {
  const std::string octets = Framed(Event("one"));
  for (size_t i = 0; i + 1 < octets.size(); ++i) {
    Say(octets.substr(i, 1));
    const Result<std::vector<Packet>> none = connection.OnReadable();
    REQUIRE(none);
    CHECK(none->empty());
  }
  Say(octets.substr(octets.size() - 1) + Framed(Event("two")) + Framed(Event("three")) +
      Framed(Event("four")).substr(0, 7));
  CHECK(connection.OnReadable() == std::vector<Packet>{Event("one"), Event("two"), Event("three")});
  Say(Framed(Event("four")).substr(7));
  CHECK(connection.OnReadable() == std::vector<Packet>{Event("four")});
}

TEST_CASE_METHOD(Pair, "What does not go at once goes later, in order") {
  const int small = 4096;
  setsockopt(connection.fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
  Packet large{PacketType::kRequest, "x", {}};
  large.message.Add("v", std::string(60'000, 'v'));
  std::string expected;
  for (int i = 0; i < 5; ++i) {
    REQUIRE(connection.Send(large));
    expected += Framed(large);
  }
  REQUIRE(connection.wants_write());
  std::string heard;
  while (heard.size() < expected.size()) {
    heard += Hear(std::min<size_t>(1000, expected.size() - heard.size()));
    REQUIRE(connection.OnWritable());
  }
  CHECK_FALSE(connection.wants_write());
  CHECK(heard == expected);
}

TEST_CASE_METHOD(Pair, "One that never reads is given up") {
  Packet large{PacketType::kRequest, "x", {}};
  large.message.Add("v", std::string(60'000, 'v'));
  Result<void> sent;
  for (int i = 0; i < 100 && sent; ++i) sent = connection.Send(large);
  REQUIRE_FALSE(sent);
  CHECK(sent.error().reason == Reason::kKmLost);
}

TEST_CASE_METHOD(Pair, "What came before the end is told before it") {
  Say(Framed(Event("last")) + "\0\0"s.substr(0, 1));
  charon.Reset();
  CHECK(connection.OnReadable() == std::vector<Packet>{Event("last")});
  const Result<std::vector<Packet>> end = connection.OnReadable();
  REQUIRE_FALSE(end);
  CHECK(end.error().reason == Reason::kKmLost);
  // Writing to one that is gone is an error too, not a signal.
  CHECK_FALSE(connection.Send(Event("x")));
}

TEST_CASE_METHOD(Pair, "What is no packet ends it") {
  SECTION("too long") { Say("\0\x08\0\x01"s); }
  SECTION("much too long") { Say("\xff\xff\xff\xff"s); }
  SECTION("empty") { Say("\0\0\0\0"s); }
  SECTION("no such type") { Say("\0\0\0\x01\x09"s); }
  SECTION("a message that does not end") { Say("\0\0\0\x02\x01\x01"s); }
  CHECK_FALSE(connection.OnReadable());
}

TEST_CASE("No file, nobody listening, too many waiting: each is told apart") {
  const std::string path = Place("vici.sock");
  int error = 0;
  CHECK_FALSE(Connection::Open(path, error));
  CHECK(error == ENOENT);
  const UniqueFd server = Bound(path);
  CHECK_FALSE(Connection::Open(path, error));
  CHECK(error == ECONNREFUSED);
  REQUIRE(listen(server.get(), 1) == 0);
  std::vector<Connection> waiting;
  for (int i = 0; i < 10; ++i) {
    Result<Connection> one = Connection::Open(path, error);
    if (!one) break;
    CHECK(error == 0);
    waiting.push_back(std::move(*one));
  }
  CHECK_FALSE(waiting.empty());
  CHECK(error == EAGAIN);
  // What is sent before it is accepted arrives.
  REQUIRE(waiting[0].Send(Event("early")));
  const UniqueFd accepted(accept(server.get(), nullptr, nullptr));
  std::string octets(Framed(Event("early")).size(), '\0');
  CHECK(recv(accepted.get(), octets.data(), octets.size(), MSG_WAITALL) ==
        static_cast<ssize_t>(octets.size()));
  CHECK(octets == Framed(Event("early")));
  CHECK_FALSE(Connection::Open(std::string(200, 'x'), error));
  CHECK(error == ENAMETOOLONG);
}

}  // namespace
}  // namespace latchkey::broker::vici
