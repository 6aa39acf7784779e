// echo: a datagram to another host and back, under the shim, by turns: by libc's own functions on
// a socket that the SPD alone protects, and by name on one that a broker holds.
//
//   echo serve ADDRESS PORT        sends back what comes to PORT and PORT + 1
//   echo measure ADDRESS PORT N    N times each way (bare: to PORT + 1); medians, and their ratio
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

constexpr int kPatienceMs = 5000;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

int64_t Now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

sockaddr_in Endpoint(const char* address, int port) {
  sockaddr_in endpoint{};
  endpoint.sin_family = AF_INET;
  endpoint.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, address, &endpoint.sin_addr) != 1) Die(address);
  return endpoint;
}

int Serve(const char* address, int port) {
  pollfd sockets[2];
  for (int i = 0; i < 2; ++i) {
    sockets[i] = {socket(AF_INET, SOCK_DGRAM, 0), POLLIN, 0};
    const sockaddr_in name = Endpoint(address, port + i);
    if (bind(sockets[i].fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
      Die("bind");
    }
  }
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    if (poll(sockets, 2, -1) < 0) Die("poll");
    for (const pollfd& each : sockets) {
      if (each.revents == 0) continue;
      char text[2048];
      sockaddr_in from{};
      socklen_t length = sizeof(from);
      auto* name = reinterpret_cast<sockaddr*>(&from);
      const ssize_t size = recvfrom(each.fd, text, sizeof(text), 0, name, &length);
      if (size > 0) sendto(each.fd, text, static_cast<size_t>(size), 0, name, length);
    }
  }
}

struct Way {
  decltype(&::sendto) send;
  decltype(&::recv) receive;
  sockaddr_in to;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  std::vector<int64_t> times{};

  int64_t Once() const {
    char text[64] = {};
    const auto* name = reinterpret_cast<const sockaddr*>(&to);
    const int64_t start = Now();
    if (send(fd, text, sizeof(text), 0, name, sizeof(to)) != sizeof(text)) Die("sendto");
    pollfd answer{fd, POLLIN, 0};
    if (poll(&answer, 1, kPatienceMs) != 1) Die("no answer");
    if (receive(fd, text, sizeof(text), 0) != sizeof(text)) Die("recv");
    return Now() - start;
  }
};

template <typename Function>
Function* Libc(const char* name, Function* seen) {
  void* library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto bare = reinterpret_cast<Function*>(dlsym(library, name));
  if (bare == nullptr) Die(name);
  if (reinterpret_cast<void*>(bare) == reinterpret_cast<void*>(seen)) Die("no shim");
  return bare;
}

int Measure(const char* address, int port, int rounds) {
  Way ways[2] = {{Libc("sendto", &::sendto), Libc("recv", &::recv), Endpoint(address, port + 1)},
                 {&::sendto, &::recv, Endpoint(address, port)}};
  for (int i = -10; i < rounds; ++i) {
    for (Way& way : ways) {
      const int64_t taken = way.Once();
      if (i >= 0) way.times.push_back(taken);
    }
  }
  double median[2];
  for (int i = 0; i < 2; ++i) {
    std::ranges::sort(ways[i].times);
    median[i] = static_cast<double>(ways[i].times[ways[i].times.size() / 2]) / 1000;
  }
  std::printf("datagram there and back, p50 %7.1f us %10.1f us %+10.1f us   (%.2f of plain ESP)\n",
              median[0], median[1], median[1] - median[0], median[1] / median[0]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc >= 4 ? argv[1] : "";
  if (verb == "serve") return Serve(argv[2], std::atoi(argv[3]));
  if (verb == "measure" && argc == 5) {
    return Measure(argv[2], std::atoi(argv[3]), std::max(100, std::atoi(argv[4])));
  }
  std::fprintf(stderr, "usage: echo serve|measure ADDRESS PORT [N]\n");
  return 2;
}
