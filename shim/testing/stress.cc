// Threads that do to sockets what programs do, at random, under the shim; it knows nothing of it.
//
//   stress run SEED OPERATIONS THREADS GOOD-IP GOOD-PORT BAD-IP BAD-PORT ERRNO FREE-IP FREE-PORT
//   stress once GOOD-IP ... FREE-PORT     what `run` exec's
//   stress serve PORT...                  what greets
//
// `run` prints `asked N` (connects that a broker must have been asked about) and `left N`
// (descriptors that are open and were not before, but for connections to a broker), `grown N` (KiB
// of memory since a tenth was done), and before that a line `.` for each 250 operations of a
// thread. A difference from the model, and a thread that makes no step for a minute, end it by
// abort().
#include <arpa/inet.h>
#include <dirent.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "shim/testing/greeter.h"
#include "shim/testing/stress_model.h"

namespace latchkey::testing {
namespace {

constexpr int kPatienceSeconds = 60;
constexpr int kWorldArguments = 7;
constexpr int kDot = 250;

sockaddr_in Address(const char* ip, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) std::abort();
  return address;
}

void ReadWorld(char** argument, StressWorld& world) {
  world.good = Address(argument[0], argument[1]);
  world.bad = Address(argument[2], argument[3]);
  world.refusal = std::atoi(argument[4]);
  world.free = Address(argument[5], argument[6]);
}

bool IsBroker(int fd) {
  sockaddr_un peer{};
  socklen_t length = sizeof(peer);
  int type = 0;
  socklen_t size = sizeof(type);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
         peer.sun_family == AF_UNIX && length > sizeof(sa_family_t) &&
         getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

std::set<int> Descriptors() {
  std::set<int> open;
  DIR* const folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != dirfd(folder) && !IsBroker(fd)) open.insert(fd);
  }
  closedir(folder);
  return open;
}

long Memory() {
  FILE* const file = std::fopen("/proc/self/status", "r");
  long kib = 0;
  char line[256];
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::sscanf(line, "VmData: %ld", &kib) == 1) break;
  }
  std::fclose(file);
  return kib;
}

class Team {
 public:
  Team(StressWorld& world, int count, uint32_t seed) {
    for (int i = 0; i < count; ++i) {
      members_.push_back(
          std::make_unique<StressThread>(world, owners_, i, seed + static_cast<uint32_t>(i)));
    }
    sem_init(&done_, 0, 0);
  }

  // Has them make that many steps all together, and watches.
  void Work(long operations) {
    std::vector<std::thread> threads;
    const long each = operations / static_cast<long>(members_.size());
    for (const auto& member : members_) {
      threads.emplace_back([this, &member, each] {
        for (long i = 1; i <= each; ++i) {
          member->Step();
          if (i % kDot == 0) (void)!write(STDOUT_FILENO, ".\n", 2);
        }
        sem_post(&done_);
      });
    }
    Watch();
    for (std::thread& thread : threads) thread.join();
  }

  void End() {
    for (const auto& member : members_) member->End();
  }

 private:
  // Returns when all are done. That one makes no step for a minute is a deadlock.
  void Watch() {
    std::vector<long> before(members_.size(), -1);
    std::vector<int> idle(members_.size(), 0);
    for (size_t done = 0; done < members_.size();) {
      timespec until{};
      clock_gettime(CLOCK_REALTIME, &until);
      ++until.tv_sec;
      if (sem_timedwait(&done_, &until) == 0) {
        ++done;
        continue;
      }
      if (errno != ETIMEDOUT || done > 0) continue;  // who is done makes no step
      for (size_t i = 0; i < members_.size(); ++i) {
        const long steps = members_[i]->steps;
        idle[i] = steps == before[i] ? idle[i] + 1 : 0;
        before[i] = steps;
        if (idle[i] < kPatienceSeconds) continue;
        std::fprintf(stderr, "thread %zu hangs in step %ld, %s\n", i, steps,
                     members_[i]->last.load());
        std::abort();
      }
    }
  }

  StressOwners owners_;
  std::vector<std::unique_ptr<StressThread>> members_;
  sem_t done_{};
};

int Run(int count, char** argument) {
  if (count != 3 + kWorldArguments) return 2;
  StressWorld world;
  ReadWorld(argument + 3, world);
  static char self[4096];
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) return 3;
  static char verb[] = "once";
  std::vector<char*> child = {self, verb};
  child.insert(child.end(), argument + 3, argument + count);
  child.push_back(nullptr);
  world.child = child.data();
  const long operations = std::atol(argument[1]);
  const std::set<int> before = Descriptors();
  Team team(world, std::atoi(argument[2]), static_cast<uint32_t>(std::atol(argument[0])));
  team.Work(operations / 10);
  const long memory = Memory();
  team.Work(operations - operations / 10);
  const long grown = Memory() - memory;
  team.End();
  std::set<int> left = Descriptors();
  for (const int fd : before) left.erase(fd);
  for (const int fd : left) std::fprintf(stderr, "descriptor %d is left\n", fd);
  std::printf("asked %ld\nleft %zu\ngrown %ld\n", world.asked.load(), left.size(), grown);
  return left.empty() ? 0 : 1;
}

int Serve(int count, char** argument) {
  std::vector<std::unique_ptr<Greeter>> greeters;
  for (int i = 0; i < count; ++i) {
    greeters.push_back(std::make_unique<Greeter>(static_cast<uint16_t>(std::atoi(argument[i]))));
  }
  for (;;) pause();
}

}  // namespace

int Main(int count, char** argument) {
  const std::string verb = count > 1 ? argument[1] : "";
  if (verb == "run") return Run(count - 2, argument + 2);
  if (verb == "serve" && count > 2) return Serve(count - 2, argument + 2);
  if (verb != "once" || count != 2 + kWorldArguments) return 2;
  StressWorld world;
  ReadWorld(argument + 2, world);
  return ConnectOnce(world);
}

}  // namespace latchkey::testing

int main(int count, char** argument) { return latchkey::testing::Main(count, argument); }
