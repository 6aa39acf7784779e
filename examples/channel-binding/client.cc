// binding-client ADDRESS PORT SECRET: proves that it knows the secret, over this very channel, and
// wants the same of the server. Exit status 0 only when both did.
#include <arpa/inet.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "examples/channel-binding/common.h"

namespace {

using namespace example;  // NOLINT(google-build-using-namespace): its own

int Fail(const std::string& why) {
  std::printf("%s\n", why.c_str());
  return 1;
}

int Talk(int fd, const std::string& secret) {
  const std::optional<std::string> binding = BindingOf(fd);
  // Asked before anything is said: a proof without the channel could be passed on.
  if (!binding) return Fail("no binding");
  Nonce theirs;
  if (!Receive(fd, theirs)) return Fail("the server left");
  Nonce ours;
  randombytes_buf(ours.data(), ours.size());
  Proof proof;
  if (!Send(fd, ours) || !Send(fd, Prove(secret, 'c', theirs, ours, *binding)) ||
      !Receive(fd, proof)) {
    return Fail("refused over " + Show(*binding));
  }
  if (!Same(proof, Prove(secret, 's', theirs, ours, *binding))) {
    return Fail("the server does not know the secret, or this is another channel");
  }
  std::printf("authenticated over %s\n", Show(*binding).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || sodium_init() < 0) {
    std::fprintf(stderr, "usage: binding-client ADDRESS PORT SECRET\n");
    return 2;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[2])));
  if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) return 2;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0) {
    std::perror("connect");
    return 1;
  }
  return Talk(fd, argv[3]);
}
