// The stress under the shim, against the broker of the tests: nothing differs from the model,
// nothing is left behind, not even by who is killed. STRESS_OPERATIONS: how many, STRESS_SEED:
// which.
//
//   bazel test --test_env=STRESS_OPERATIONS=1000000 --test_env=STRESS_SEED=7
//   //shim/testing:stress_test
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "shim/testing/fake_broker.h"
#include "shim/testing/greeter.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

constexpr long kGrownKib = 1024;
constexpr int kKills = 12;

long FromEnvironment(const char* name, long otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atol(value);
}

// The stress, in a process group of its own.
class Stress {
 public:
  Stress(const FakeBroker& broker, const std::vector<std::string>& words) {
    const std::string program = std::filesystem::absolute(std::getenv("STRESS"));
    std::vector<std::string> variables = {"LD_PRELOAD=" +
                                          std::filesystem::absolute(std::getenv("SHIM")).string()};
    for (const auto& [key, value] : In(broker)) variables.push_back(key + "=" + value);
    std::vector<std::string> texts = {program};
    texts.insert(texts.end(), words.begin(), words.end());
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    const int error = posix_spawn(&pid_, program.c_str(), &actions, &attributes,
                                  Pointers(texts).data(), Pointers(variables).data());
    if (error != 0) std::abort();
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(out[1]);
    out_ = out[0];
  }
  ~Stress() {
    if (pid_ > 0) Kill();
    close(out_);
  }
  Stress(const Stress&) = delete;
  Stress& operator=(const Stress&) = delete;

  // Reads on for so many lines; false when it ended before.
  bool Await(int lines) const {
    char octet = 0;
    while (lines > 0 && read(out_, &octet, 1) == 1) lines -= octet == '\n' ? 1 : 0;
    return lines == 0;
  }

  // Returns what it says at the end, and its status unless that is 0.
  std::string Finish() {
    std::string text;
    char octet = 0;
    while (read(out_, &octet, 1) == 1) text += octet;
    const int status = End();
    std::string last;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
      if (text[at] != '.') last += text.substr(at, text.find('\n', at) + 1 - at);
    }
    return status == 0 ? last : last + "status " + std::to_string(status) + "\n";
  }

  void Kill() {
    kill(-pid_, SIGKILL);
    End();
  }

 private:
  static std::vector<char*> Pointers(const std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    // posix_spawn's parameters lack a const for the sake of old C; it writes to none of it.
    for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
  }

  int End() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

  pid_t pid_ = -1;
  int out_ = -1;
};

struct World {
  World() {
    broker.SetPort(kBad, {Verdict::kRefused, EKEYREJECTED});
    wire::PageRule& rule = broker.page().rules[0];
    rule.settle = wire::Settle::kBypass;
    rule.port_low = rule.port_high = free.port();
    broker.page().rule_count = 1;
  }

  std::vector<std::string> Words(long seed, long operations, int threads) const {
    return {"run",
            std::to_string(seed),
            std::to_string(operations),
            std::to_string(threads),
            "127.0.0.1",
            std::to_string(good.port()),
            "127.0.0.1",
            std::to_string(kBad),
            std::to_string(EKEYREJECTED),
            "127.0.0.1",
            std::to_string(free.port())};
  }

  // Nobody is connected to anything, and the broker has no request any more.
  void WantNothingLeft() const {
    broker.AwaitNobody();
    CHECK(broker.connections() == 0);
    CHECK(broker.waiting() == 0);
    good.AwaitNobody();
    free.AwaitNobody();
    CHECK(good.clients() + free.clients() == 0);
  }

  static constexpr uint16_t kBad = 9;
  FakeBroker broker;
  Greeter good;
  Greeter free;
};

long After(const std::string& text, const std::string& word) {
  const size_t at = text.find(word + " ");
  return at == std::string::npos ? -1 : std::atol(text.c_str() + at + word.size() + 1);
}

TEST_CASE("threads at random: all as the model has it, every connect asked about, nothing left") {
  World world;
  const long seed = FromEnvironment("STRESS_SEED", 5660);
  const long operations = FromEnvironment("STRESS_OPERATIONS", 200'000);
  CAPTURE(seed, operations);
  Stress stress(world.broker, world.Words(seed, operations, 8));
  const std::string said = stress.Finish();
  INFO(said);
  CHECK(said.find("status") == std::string::npos);
  CHECK(After(said, "left") == 0);
  CHECK(After(said, "asked") > operations / 20);
  CHECK(After(said, "asked") == world.broker.Count(Type::kConnect));
  CHECK(After(said, "grown") >= 0);
  CHECK(After(said, "grown") <= kGrownKib);
  world.WantNothingLeft();
}

TEST_CASE("killed at any moment, it leaves nothing behind") {
  World world;
  const long seed = FromEnvironment("STRESS_SEED", 5660);
  CAPTURE(seed);
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < kKills; ++i) {
    Stress stress(world.broker, world.Words(seed + i, 1'000'000'000, 4));
    CHECK(stress.Await(static_cast<int>(1 + random() % 24)));
    usleep(static_cast<useconds_t>(random() % 3000));  // to meet it anywhere
    stress.Kill();
    world.WantNothingLeft();
  }
}

}  // namespace
}  // namespace latchkey::testing
