#include "tools/latchkeyd/kernel/borrow.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

// A child that owns a copy of every descriptor of the test until it is told to end.
class Holder {
 public:
  explicit Holder(uid_t uid = 0) : pid_(fork()) {
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (uid != 0 && setuid(uid) != 0) _exit(1);
    while (true) pause();
  }
  ~Holder() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  int pid() const { return pid_; }

 private:
  pid_t pid_;
};

SocketHint HintOf(int fd) {
  const SocketFacts facts = *InspectSocket(fd, std::nullopt);
  return SocketHint{facts.cookie, facts.inode, 0, -1};
}

TEST_CASE("A socket of another process is borrowed by hint, by process and by inode") {
  TestNetns netns;
  UniqueFd own = TcpSocket(AF_INET);
  const SocketHint hint = HintOf(own.get());
  const int number = own.get();
  const Holder holder(65534);
  own.Reset();

  SocketHint exact = hint;
  exact.pid = holder.pid();
  exact.fd = number;
  SocketHint renumbered = exact;
  renumbered.fd = 0;
  SocketHint moved = hint;
  moved.pid = getpid();
  for (const SocketHint& each : {exact, renumbered, moved, hint}) {
    const UniqueFd copy = BorrowSocket(each);
    REQUIRE(copy);
    CHECK(CookieOf(copy.get()) == hint.cookie);
  }
}

TEST_CASE("Only the cookie proves a socket") {
  TestNetns netns;
  UniqueFd own = TcpSocket(AF_INET);
  SocketHint hint = HintOf(own.get());
  const Holder holder;
  hint.pid = holder.pid();
  hint.fd = own.get();
  ++hint.cookie;
  CHECK_FALSE(BorrowSocket(hint));
  hint.cookie = 0;
  CHECK_FALSE(BorrowSocket(hint));
}

TEST_CASE("A socket that nobody holds is not found") {
  TestNetns netns;
  UniqueFd own = TcpSocket(AF_INET);
  const SocketHint hint = HintOf(own.get());
  own.Reset();
  CHECK_FALSE(BorrowSocket(hint));
}

TEST_CASE("Held sockets are those of other processes") {
  TestNetns netns;
  UniqueFd shared = TcpSocket(AF_INET);
  const uint64_t inode = HintOf(shared.get()).inode;
  {
    const Holder holder(65534);
    const UniqueFd mine = TcpSocket(AF_INET);
    const Result<std::unordered_set<uint64_t>> held = ListHeldSockets();
    REQUIRE(held);
    CHECK(held->contains(inode));
    CHECK_FALSE(held->contains(HintOf(mine.get()).inode));
  }
  const Result<std::unordered_set<uint64_t>> held = ListHeldSockets();
  REQUIRE(held);
  CHECK_FALSE(held->contains(inode));
}

}  // namespace
}  // namespace latchkey::broker
