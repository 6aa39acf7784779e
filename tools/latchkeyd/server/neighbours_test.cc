#include "tools/latchkeyd/server/neighbours.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace latchkey::broker {
namespace {

struct Directory {
  Directory() {
    char name[] = "/tmp/neighbours_test.XXXXXX";
    path = mkdtemp(name);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string Private(int number) const {
    std::string own = path + "/private/" + std::to_string(number);
    std::filesystem::create_directories(own);
    return own;
  }
  std::string path;
};

TEST_CASE("One broker holds a directory") {
  const Directory directory;
  Result<UniqueFd> lock = LockDirectory(directory.path);
  REQUIRE(lock);
  const Result<UniqueFd> second = LockDirectory(directory.path);
  REQUIRE_FALSE(second);
  CHECK(second.error().value.find("another latchkeyd is running") != std::string::npos);
  lock->Reset();
  CHECK(LockDirectory(directory.path));
  CHECK_FALSE(LockDirectory(directory.path + "/none"));
}

TEST_CASE("Others are those whose locks are held") {
  const Directory directory;
  const std::string first = directory.Private(1);
  const std::string second = directory.Private(2);
  CHECK_FALSE(OtherBrokers(first, directory.path));
  Result<UniqueFd> own = LockDirectory(first);
  REQUIRE(own);
  CHECK_FALSE(OtherBrokers(first, directory.path));
  CHECK(OtherBrokers(second, directory.path));
  CHECK(OtherBrokers(directory.path, directory.path));
  own->Reset();  // the file stays: it is the lock that counts
  CHECK_FALSE(OtherBrokers(second, directory.path));
  Result<UniqueFd> main = LockDirectory(directory.path);
  REQUIRE(main);
  CHECK(OtherBrokers(first, directory.path));
}

// Each stops like the broker: in its turn it looks for others, and its lock goes before its turn.
TEST_CASE("Of many that stop at once exactly one sees nobody") {
  constexpr int kBrokers = 8;
  for (int round = 0; round < 50; ++round) {
    const Directory directory;
    std::vector<std::pair<std::string, UniqueFd>> brokers;
    for (int number = 0; number < kBrokers; ++number) {
      const std::string own = directory.Private(number);
      Result<UniqueFd> lock = LockDirectory(own);
      REQUIRE(lock);
      brokers.emplace_back(own, std::move(*lock));
    }
    std::atomic<int> ready = 0;
    std::atomic<int> alone = 0;
    std::vector<std::thread> threads;
    for (auto& broker : brokers) {
      threads.emplace_back([&] {
        Turn turn(directory.path);
        ++ready;
        while (ready < kBrokers) {
        }
        turn.Take(std::chrono::minutes(1));
        if (!OtherBrokers(broker.first, directory.path)) ++alone;
        broker.second.Reset();
      });
    }
    for (auto& thread : threads) thread.join();
    REQUIRE(alone == 1);
  }
}

TEST_CASE("A turn that was passed is the next one's") {
  const Directory directory;
  Turn first(directory.path);
  Turn second(directory.path);
  std::atomic<bool> taken = false;
  first.Take();
  std::thread waits([&] {
    second.Take();
    taken = true;
  });
  CHECK_FALSE(taken);
  first.Pass();
  waits.join();
  CHECK(taken);
  struct stat status {};
  REQUIRE(stat((directory.path + "/turn").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("Whoever keeps the turn keeps nobody for good") {
  const Directory directory;
  Turn first(directory.path);
  Turn second(directory.path);
  REQUIRE(first.Take());
  CHECK_FALSE(second.Take(std::chrono::milliseconds(20)));
  first.Pass();
  CHECK(second.Take(std::chrono::milliseconds(0)));
}

TEST_CASE("Without the directory there is nobody to wait for") {
  Turn turn("/nonexistent/latchkey");
  turn.Take();
  turn.Pass();
  CHECK_FALSE(OtherBrokers("/nonexistent/latchkey/private/1", "/nonexistent/latchkey"));
}

}  // namespace
}  // namespace latchkey::broker
