#include "shim/testing/probe_handed.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

constexpr int kFirst = 3;

int Listen() {
  const int fd = Tcp();
  const sockaddr_in any = Loopback(0);
  bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
  Outcome("listen", listen(fd, 8));
  return fd;
}

// Starts this program again.
void Hand(const std::string& count, const std::string& pid) {
  setenv("LISTEN_FDS", count.c_str(), 1);
  setenv("LISTEN_PID", pid.c_str(), 1);
  std::fflush(stdout);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  execl(self.c_str(), "probe", "handed-taken", nullptr);
  Outcome("exec", -1);
}

void HandAlone(const std::string& count, const std::string& pid) {
  if (dup2(Listen(), kFirst) != kFirst) Outcome("dup2", -1);
  Hand(count, pid);
}

// A connected socket, then the listener, then nothing.
void HandAmongOthers() {
  const int listener = Listen();
  const int first = Tcp();
  if (listener != kFirst || first != kFirst + 1) return Print("first", first);
  const int copy = dup(listener);
  dup2(first, kFirst);
  dup2(copy, first);
  close(copy);
  Outcome("connect", Connect(kFirst));
  Hand("9", std::to_string(getpid()));
}

void Take() {
  int listener = kFirst;
  int listens = 0;
  socklen_t length = sizeof(listens);
  getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
  if (listens == 0) ++listener;
  sockaddr_in address{};
  length = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  for (char number = 0; number < 3; ++number) {
    const int client = Tcp();
    Connect(client, ntohs(address.sin_port));
    send(client, &number, 1, MSG_NOSIGNAL);
  }
  errno = 77;
  const int child = accept(listener, nullptr, nullptr);
  Print("errno", errno);
  char number = -1;
  recv(child, &number, 1, 0);
  Print("number", number);
}

}  // namespace

std::map<std::string, std::function<void()>> HandedProbes() {
  return {
      {"handed", [] { HandAlone("1", std::to_string(getpid())); }},
      {"handed-other", [] { HandAlone("1", std::to_string(getppid())); }},
      {"handed-odd", HandAmongOthers},
      {"handed-bad", [] { HandAlone("99999999999999999999", std::to_string(getpid())); }},
      {"handed-taken", Take},
  };
}

}  // namespace latchkey::testing
