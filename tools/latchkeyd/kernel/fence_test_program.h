// A process inside a fence, that makes sockets on demand: a socket is its maker's cgroup's, whoever
// uses it.
#ifndef TOOLS_LATCHKEYD_KERNEL_FENCE_TEST_PROGRAM_H_
#define TOOLS_LATCHKEYD_KERNEL_FENCE_TEST_PROGRAM_H_

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "tools/unique_fd.h"

namespace latchkey::broker {

class FencedProgram {
 public:
  FencedProgram() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("socketpair");
    }
    ours_.Reset(ends[0]);
    pid_ = fork();
    if (pid_ == 0) Serve(ends[1]);
    close(ends[1]);
  }
  ~FencedProgram() { End(); }
  FencedProgram(const FencedProgram&) = delete;
  FencedProgram& operator=(const FencedProgram&) = delete;

  int pid() const { return pid_; }
  void End() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

  // A socket that the process made. None: `error` says why.
  UniqueFd Socket(int domain, int type, int protocol = 0) {
    const int wanted[3] = {domain, type | SOCK_CLOEXEC, protocol};
    if (send(ours_.get(), wanted, sizeof(wanted), 0) < 0) throw std::runtime_error("send");
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec part{&error, sizeof(error)};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (recvmsg(ours_.get(), &message, MSG_CMSG_CLOEXEC) != sizeof(error)) {
      throw std::runtime_error("recvmsg");
    }
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr) return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return UniqueFd(fd);
  }
  int error = 0;

 private:
  [[noreturn]] static void Serve(int end) {
    int wanted[3];
    while (recv(end, wanted, sizeof(wanted), 0) == sizeof(wanted)) {
      const int fd = socket(wanted[0], wanted[1], wanted[2]);
      int number = fd < 0 ? errno : 0;
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      iovec part{&number, sizeof(number)};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
      }
      if (sendmsg(end, &message, MSG_NOSIGNAL) < 0) _exit(1);
      close(fd);
    }
    _exit(0);
  }

  UniqueFd ours_;
  pid_t pid_ = -1;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_FENCE_TEST_PROGRAM_H_
