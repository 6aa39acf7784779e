#include "tools/latchkey/handed_sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

using Descriptors = std::vector<int>;

TEST_CASE("inet sockets that stay open across exec are found, of either family and any type") {
  REQUIRE(HandedSockets() == Descriptors{});
  const UniqueFd stream(socket(AF_INET, SOCK_STREAM, 0));
  const UniqueFd datagram(socket(AF_INET6, SOCK_DGRAM, 0));
  REQUIRE(stream);
  REQUIRE(datagram);
  REQUIRE(stream.get() < datagram.get());
  CHECK(HandedSockets() == Descriptors{stream.get(), datagram.get()});
}

TEST_CASE("a listener is one, and each of its numbers") {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(listen(listener.get(), 1) == 0);
  const UniqueFd copy(fcntl(listener.get(), F_DUPFD, 700));
  REQUIRE(copy);
  CHECK(HandedSockets() == Descriptors{listener.get(), copy.get()});
}

TEST_CASE("what exec closes is not handed on, and other things are no inet sockets") {
  const UniqueFd closes(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd local(socket(AF_UNIX, SOCK_STREAM, 0));
  const UniqueFd file(open("/dev/null", O_RDONLY));
  REQUIRE(closes);
  REQUIRE(local);
  REQUIRE(file);
  CHECK(HandedSockets() == Descriptors{});
  CHECK(OutsideOfFence().empty());
}

TEST_CASE("it is said which they are") {
  const UniqueFd one(socket(AF_INET, SOCK_STREAM, 0));
  CHECK(OutsideOfFence() == "1 socket that it was handed is outside of the fence: descriptor " +
                                std::to_string(one.get()));
  const UniqueFd two(fcntl(one.get(), F_DUPFD, 700));
  CHECK(OutsideOfFence() == "2 sockets that it was handed are outside of the fence: descriptors " +
                                std::to_string(one.get()) + ", " + std::to_string(two.get()));
}

}  // namespace
}  // namespace latchkey::tool
