// What every probe needs: sockets on loopback, and lines of output.
#ifndef SHIM_TESTING_PROBE_TOOLS_H_
#define SHIM_TESTING_PROBE_TOOLS_H_

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

namespace latchkey::testing {

inline uint16_t port;  // of the test's server

inline sockaddr_in Loopback(uint16_t to) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(to);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Where nobody answers: 192.0.2.1, for documentation (RFC 5737).
inline sockaddr_in Blackhole() {
  sockaddr_in address = Loopback(9);
  address.sin_addr.s_addr = htonl(0xc0000201);
  return address;
}

inline void Print(const char* what, long value) { std::printf("%s %ld\n", what, value); }

// Prints 0 or the errno.
inline void Outcome(const char* what, long result) { Print(what, result < 0 ? errno : 0); }

inline int Tcp(int flags = 0) { return socket(AF_INET, SOCK_STREAM | flags, 0); }

inline int ConnectTo(int fd, const sockaddr_in& address) {
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

inline int Connect(int fd, uint16_t to = port) { return ConnectTo(fd, Loopback(to)); }

// Connects and closes `times` times in each of `count` threads; returns how often it went well.
inline int ConnectInThreads(int count, int times) {
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&good, times] {
      for (int n = 0; n < times; ++n) {
        const int fd = Tcp();
        if (Connect(fd) == 0) ++good;
        close(fd);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return good;
}

inline int OpenCount() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// Says when it is ready and waits for a line, so that the test may change the world in between.
inline void Pause() {
  std::printf("ready\n");
  std::fflush(stdout);
  char line[8];
  if (std::fgets(line, sizeof(line), stdin) == nullptr) std::exit(3);
}

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_TOOLS_H_
