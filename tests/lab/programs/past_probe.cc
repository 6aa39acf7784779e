// Reaches a TCP port by ways that no preload sees.
//
// past-probe raw|uring|handed ADDRESS PORT: makes a socket by an instruction of its own, and
// connects it by another, or by io_uring; or takes the one that it was handed as descriptor 9. Says
// "connected", or the errno's name of what failed.
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

// As the kernel answers: negative, an errno.
long Raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result = number;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

long Raw(long number, long a, const void* b, long c) {
  return Raw(number, a, reinterpret_cast<long>(b), c);
}

char* Map(int ring, size_t size, long offset) {
  const long at = Raw(SYS_mmap, 0, static_cast<long>(size), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, ring, offset);
  return at < 0 && at > -4096 ? nullptr : reinterpret_cast<char*>(at);
}

// One connect, and its answer.
long ByRing(int socket, const sockaddr_in& to) {
  io_uring_params params{};
  const long ring = Raw(SYS_io_uring_setup, 1, &params, 0);
  if (ring < 0) return ring;
  const int fd = static_cast<int>(ring);
  char* const queue =
      Map(fd, params.sq_off.array + params.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
  char* const answers =
      Map(fd, params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
  auto* const entry =
      reinterpret_cast<io_uring_sqe*>(Map(fd, sizeof(io_uring_sqe), IORING_OFF_SQES));
  if (queue == nullptr || answers == nullptr || entry == nullptr) return -ENOMEM;
  std::memset(entry, 0, sizeof(*entry));
  entry->opcode = IORING_OP_CONNECT;
  entry->fd = socket;
  entry->addr = reinterpret_cast<uint64_t>(&to);
  entry->off = sizeof(to);
  *reinterpret_cast<uint32_t*>(queue + params.sq_off.array) = 0;
  reinterpret_cast<std::atomic<uint32_t>*>(queue + params.sq_off.tail)->store(1);
  const long entered = Raw(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS);
  if (entered < 0) return entered;
  return reinterpret_cast<io_uring_cqe*>(answers + params.cq_off.cqes)->res;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string way = argv[1];
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[3])));
  if (inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) return 2;
  const long socket = way == "handed" ? 9 : Raw(SYS_socket, AF_INET, SOCK_STREAM, 0);
  long result = socket;
  if (socket >= 0) {
    const int fd = static_cast<int>(socket);
    result = way == "uring" ? ByRing(fd, to) : Raw(SYS_connect, fd, &to, sizeof(to));
  }
  std::puts(result >= 0 ? "connected" : strerrorname_np(static_cast<int>(-result)));
  return 0;
}
