#include "shim/testing/probe_calls.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

// Has everything be closed by the next exec; it stays open meanwhile.
void MarkRange() {
  const int fd = Tcp();
  const int other = Tcp();
  const int before = OpenCount();
  const auto first = static_cast<unsigned>(fd);
  Outcome("close_range", close_range(first, ~0U, CLOSE_RANGE_CLOEXEC));
  Print("more", OpenCount() - before);
  Print("marked", fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(other, F_GETFD) == FD_CLOEXEC);
  Print("below", fcntl(STDIN_FILENO, F_GETFD));
  Outcome("connect", Connect(fd));
  Outcome("connect", Connect(other));
}

// What moves data between descriptors, once neither side of the connection says anything more.
void Moved() {
  signal(SIGPIPE, SIG_IGN);
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[8];
  while (recv(fd, text, sizeof(text), 0) > 0) {
  }
  shutdown(fd, SHUT_WR);
  const int file = memfd_create("file", 0);
  int ends[2];
  if (file < 0 || write(file, "octets", 6) != 6 || pipe(ends) != 0) std::exit(3);
  if (write(ends[1], "octets", 6) != 6) std::exit(3);
  off_t start = 0;
  Outcome("sendfile", sendfile(fd, file, &start, 6));
  off64_t start64 = 0;
  Outcome("sendfile64", sendfile64(fd, file, &start64, 6));
  Print("offsets", start + start64);
  Outcome("splice to", splice(ends[0], nullptr, fd, nullptr, 6, 0));
  Outcome("splice from", splice(fd, nullptr, ends[1], nullptr, 6, 0));
  Print("splice nothing", splice(fd, nullptr, ends[1], nullptr, 0, 0));
}

}  // namespace

std::map<std::string, std::function<void()>> CallProbes() {
  return {
      {"call-mark-range", MarkRange},
      {"call-moved", Moved},
  };
}

}  // namespace latchkey::testing
