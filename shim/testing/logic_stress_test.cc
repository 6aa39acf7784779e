// What the shim keeps between threads, without a program around it, so that ThreadSanitizer sees
// it: the connections, and the hints by descriptor. STRESS_OPERATIONS: how many.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "shim/ask.h"
#include "shim/held.h"
#include "shim/link.h"
#include "shim/page_view.h"
#include "shim/past.h"
#include "shim/session.h"
#include "shim/testing/fake_broker.h"

namespace latchkey::shim {
namespace {

using testing::FakeBroker;
using wire::Type;
using wire::Verdict;

constexpr int kAskers = 6;
constexpr int kFirst = 900;  // below all numbers that connections get
constexpr int kLast = 1100;

long Operations() {
  const char* const value = std::getenv("STRESS_OPERATIONS");
  return value == nullptr ? 20'000 : std::atol(value);
}

void Belong(const FakeBroker& broker) {
  uint8_t token[wire::kTokenSize];
  for (size_t i = 0; i < wire::kTokenSize; ++i) {
    token[i] = static_cast<uint8_t>(std::stoi(broker.token().substr(2 * i, 2), nullptr, 16));
  }
  SetBroker(broker.path().c_str());
  SetToken(token);
  OwnLinks();
  OwnHints();
}

TEST_CASE("Threads ask, note, look and put others in the connections' place") {
  FakeBroker broker;
  broker.SetPort(80, {Verdict::kRefused, EKEYREJECTED});
  Belong(broker);
  REQUIRE(Attach() == 0);
  const int before = dup(STDIN_FILENO);
  close(before);
  const long each = Operations() / kAskers;
  std::atomic<long> wrong{0};
  std::atomic<int> asking{kAskers};
  std::vector<std::thread> threads;
  for (int i = 0; i < kAskers; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<uint32_t>(i));
      for (long n = 0; n < each; ++n) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        wire::Endpoint remote{};
        remote.family = AF_INET;
        remote.port = random() % 2 == 0 ? 80 : 81;
        const Permission permission = AskAbout(Type::kConnect, fd, remote);
        const bool bad = remote.port == 80;
        if (permission.granted == bad || (bad && permission.error != EKEYREJECTED)) ++wrong;
        if (!MayHavePast(fd)) ++wrong;
        NoteHeld(fd);
        if (!IsHeld(fd) || IsFree(fd)) ++wrong;
        ForgetHeld(fd);
        NoteFree(fd);
        if (IsHeld(fd)) ++wrong;
        ForgetHeld(fd);
        ForgetPast(fd);
        close(fd);
      }
      --asking;
    });
  }
  threads.emplace_back([&] {  // who closes loops and ranges
    std::mt19937 random(99);
    int links[16];
    while (asking != 0) {
      const int count = LinksInOrder(links, 16);
      for (int i = 1; i < count; ++i) {
        if (links[i - 1] >= links[i]) ++wrong;
      }
      if (count > 8) ++wrong;
      IsLink(kFirst + static_cast<int>(random() % (kLast - kFirst)));
      ForgetHeldRange(kFirst, kLast);
      if (CurrentPage() == nullptr ||
          FindTrouble(*CurrentPage(), random()).trouble != wire::Trouble::kFree) {
        ++wrong;
      }
    }
  });
  threads.emplace_back(
      [&] {  // who puts a file in a connection's place, as dup2() does, now and then
        const int file = open("/dev/null", O_RDWR | O_CLOEXEC);
        int links[16];
        long seen = 0;
        while (asking != 0) {
          const long count = broker.Count(Type::kConnect);
          if (count < seen + 200 || LinksInOrder(links, 16) == 0) {
            std::this_thread::yield();
            continue;
          }
          seen = count;
          if (dup3(file, links[0], O_CLOEXEC) != links[0]) ++wrong;
          ForgetLink(links[0]);
          if (IsLink(links[0])) ++wrong;
          close(links[0]);
        }
        close(file);
      });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(broker.Count(Type::kConnect) >= kAskers * each);
  const int after = dup(STDIN_FILENO);
  CHECK(after == before);  // nothing low is left open
  close(after);
  int left = 0;
  int links[16];
  for (int fd = kFirst; fd < kLast; ++fd) left += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  CHECK(left == LinksInOrder(links, 16));
}

}  // namespace
}  // namespace latchkey::shim
