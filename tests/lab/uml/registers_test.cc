#include "tests/lab/uml/registers.h"

#include <elf.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

namespace latchkey::lab {
namespace {

// What Linux 6.1 as user-mode-linux knows.
constexpr size_t kKnown = 2696;

TEST_CASE("what is known stays, the rest is a processor's just started", "[registers]") {
  std::vector<std::byte> known(kKnown, std::byte{0x5a});
  const uint64_t in_use = 0x3 | uint64_t{1} << 18;  // x87, SSE, and AMX's tiles
  std::memcpy(known.data() + 512, &in_use, sizeof in_use);
  std::vector<std::byte> whole(11008, std::byte{0xff});
  REQUIRE(PadRegisters(known, whole));

  uint64_t got = 0;
  std::memcpy(&got, whole.data() + 512, sizeof got);
  // Where the processor has no tiles, it gives them no place, and the kernel refuses the bit
  // itself.
  CHECK((got & 0x3) == 0x3);
  if (RegisterOctets() > kKnown) CHECK(got == 0x3);
  std::memcpy(whole.data() + 512, &in_use, sizeof in_use);
  CHECK(std::memcmp(whole.data(), known.data(), kKnown) == 0);
  for (size_t i = kKnown; i < whole.size(); ++i) REQUIRE(whole[i] == std::byte{0});
}

TEST_CASE("too little for a header, or more than there is room for, is left alone", "[registers]") {
  std::vector<std::byte> whole(600, std::byte{0x11});
  CHECK_FALSE(PadRegisters(std::vector<std::byte>(575), whole));
  CHECK_FALSE(PadRegisters(std::vector<std::byte>(601), whole));
  for (const std::byte octet : whole) REQUIRE(octet == std::byte{0x11});
}

TEST_CASE("registers of 2,696 octets can be given to a process by the preloaded ptrace",
          "[registers]") {
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSTOPPED(status));

  std::array<std::byte, kKnown> before{};
  iovec part = {before.data(), before.size()};
  auto* const type = reinterpret_cast<void*>(NT_X86_XSTATE);
  REQUIRE(ptrace(PTRACE_GETREGSET, child, type, &part) == 0);
  // A register of SSE, the first octet of the sixteen of xmm3, is another now.
  before[160 + 48] ^= std::byte{0x7f};
  const uint64_t sse = 0x2;
  uint64_t in_use = 0;
  std::memcpy(&in_use, before.data() + 512, sizeof in_use);
  in_use |= sse;
  std::memcpy(before.data() + 512, &in_use, sizeof in_use);
  part = {before.data(), before.size()};
  const long set = ptrace(PTRACE_SETREGSET, child, type, &part);
  INFO(std::strerror(errno));
  CHECK(set == 0);
  std::array<std::byte, kKnown> after{};
  part = {after.data(), after.size()};
  CHECK(ptrace(PTRACE_GETREGSET, child, type, &part) == 0);
  CHECK(after[160 + 48] == before[160 + 48]);

  errno = 0;
  CHECK(ptrace(PTRACE_PEEKUSER, child, nullptr, nullptr) != -1);
  CHECK(errno == 0);
  REQUIRE(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

}  // namespace
}  // namespace latchkey::lab
