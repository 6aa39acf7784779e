// binding-server PORT SECRET: a challenge that only who knows the secret can answer, over this very
// channel. Says for each client what came of it.
#include <netinet/in.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "examples/channel-binding/common.h"

namespace {

using namespace example;  // NOLINT(google-build-using-namespace): its own

std::string Serve(int fd, const std::string& secret) {
  const std::optional<std::string> binding = BindingOf(fd);
  if (!binding) return "no binding";
  Nonce ours;
  randombytes_buf(ours.data(), ours.size());
  Nonce theirs;
  Proof proof;
  if (!Send(fd, ours) || !Receive(fd, theirs) || !Receive(fd, proof)) return "the client left";
  if (!Same(proof, Prove(secret, 'c', ours, theirs, *binding))) {
    return "wrong secret, or another channel: " + Show(*binding);
  }
  if (!Send(fd, Prove(secret, 's', ours, theirs, *binding))) return "the client left";
  return "authenticated over " + Show(*binding);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || sodium_init() < 0) {
    std::fprintf(stderr, "usage: binding-server PORT SECRET\n");
    return 2;
  }
  const int listener = socket(AF_INET6, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(static_cast<uint16_t>(std::atoi(argv[1])));
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0 ||
      listen(listener, 8) < 0) {
    std::perror("listen");
    return 1;
  }
  for (;;) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) continue;
    std::printf("%s\n", Serve(fd, argv[2]).c_str());
    std::fflush(stdout);
    close(fd);
  }
}
