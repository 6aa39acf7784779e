#include "shim/wire/codec.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

namespace latchkey::wire {
namespace {

struct Pair {
  int ends[2];
  Pair() { REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0); }
  ~Pair() {
    close(ends[0]);
    close(ends[1]);
  }
};

SocketRequest Request() {
  SocketRequest request{};
  request.header = MakeHeader(Type::kConnect, 7);
  request.fd = 42;
  return request;
}

int OpenDescriptors() {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

TEST_CASE("a message and its descriptors arrive as they were sent") {
  Pair pair;
  const SocketRequest request = Request();
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE(SendMessage(pair.ends[0], &request, sizeof(request), &fd, 1, true) == 0);
  Received got;
  REQUIRE(ReceiveMessage(pair.ends[1], got, true) == 0);
  CHECK(got.header().type == Type::kConnect);
  CHECK(got.header().serial == 7);
  CHECK(got.As<SocketRequest>().fd == 42);
  REQUIRE(got.descriptor_count == 1);
  CHECK((fcntl(got.descriptors[0], F_GETFD) & FD_CLOEXEC) != 0);
  CloseDescriptors(got);
  close(fd);
}

TEST_CASE("the kernel says who sent it") {
  Pair pair;
  const int on = 1;
  REQUIRE(setsockopt(pair.ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
  const SocketRequest request = Request();
  REQUIRE(SendMessage(pair.ends[0], &request, sizeof(request), nullptr, 0, true) == 0);
  Received got;
  REQUIRE(ReceiveMessage(pair.ends[1], got, true) == 0);
  CHECK(got.has_credentials);
  CHECK(got.pid == getpid());
  CHECK(got.uid == getuid());
}

TEST_CASE("nothing there, and nobody there") {
  Pair pair;
  Received got;
  CHECK(ReceiveMessage(pair.ends[1], got, false) == EAGAIN);
  shutdown(pair.ends[0], SHUT_RDWR);
  CHECK(ReceiveMessage(pair.ends[1], got, true) == EPIPE);
  const SocketRequest request = Request();
  CHECK(SendMessage(pair.ends[0], &request, sizeof(request), nullptr, 0, true) == EPIPE);
}

TEST_CASE("whatever is not exactly a message is refused, and leaks no descriptor") {
  Pair pair;
  std::vector<unsigned char> octets(sizeof(SocketRequest));
  SocketRequest request = Request();
  size_t size = sizeof(request);
  int count = 1;
  SECTION("another magic") { request.header.magic ^= 1; }
  SECTION("another version") { request.header.version = 2; }
  SECTION("an unknown type") { request.header.type = static_cast<Type>(10); }
  SECTION("another type's size") {
    request.header.type = Type::kAttach;
    request.header.size = 49;
  }
  SECTION("a size that is not the datagram's") { request.header.size += 1; }
  SECTION("one octet short") { size -= 1; }
  SECTION("one octet") { size = 1; }
  SECTION("less than a header") { size = sizeof(Header) - 1; }
  SECTION("more than there is room for") {
    octets.resize(kMaxMessage + 1);
    size = octets.size();
  }
  std::memcpy(octets.data(), &request, sizeof(request));
  const int before = OpenDescriptors();
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE(SendMessage(pair.ends[0], octets.data(), static_cast<uint32_t>(size), &fd, count, true) ==
          0);
  close(fd);
  Received got;
  CHECK(ReceiveMessage(pair.ends[1], got, true) == EPROTO);
  CHECK(got.descriptor_count == 0);
  CHECK(OpenDescriptors() == before);
}

TEST_CASE("more descriptors than any message has are refused, and none leaks") {
  Pair pair;
  const SocketRequest request = Request();
  const int before = OpenDescriptors();
  int fds[6];
  for (int& fd : fds) fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(SendMessage(pair.ends[0], &request, sizeof(request), fds, kMaxDescriptors + 1, true) ==
        EINVAL);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
  iovec part{const_cast<SocketRequest*>(&request), sizeof(request)};
  msghdr out{};
  out.msg_iov = &part;
  out.msg_iovlen = 1;
  out.msg_control = control;
  out.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&out);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(fds));
  std::memcpy(CMSG_DATA(header), fds, sizeof(fds));
  REQUIRE(sendmsg(pair.ends[0], &out, 0) > 0);
  for (const int fd : fds) close(fd);
  Received got;
  CHECK(ReceiveMessage(pair.ends[1], got, true) == EPROTO);
  CHECK(OpenDescriptors() == before);
}

}  // namespace
}  // namespace latchkey::wire
