// What one thread of the stress does and expects: sockets and files behind a few descriptors, done
// to at random, each call held against a model of what it must say.
#ifndef SHIM_TESTING_STRESS_MODEL_H_
#define SHIM_TESTING_STRESS_MODEL_H_

#include <netinet/in.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <random>

namespace latchkey::testing {

// The world that it runs in; told by the command line, so that what is exec'ed knows it too.
struct StressWorld {
  sockaddr_in good{};       // asked about, allowed; greets
  sockaddr_in bad{};        // asked about, refused
  int refusal = 0;          // with this errno
  sockaddr_in free{};       // let pass by the policy; greets
  char** child = nullptr;   // the arguments that have this program connect once (ConnectOnce)
  std::atomic<long> asked;  // how many connects the broker must have been asked about
};

// All threads' descriptors: that none is given out twice is the kernel's word, and that a thread's
// stays its own is what a shim that closes others' would break. Aborts, saying why, on a
// difference.
class StressOwners {
 public:
  void Take(int fd, int thread);
  void Give(int fd, int thread);

 private:
  std::array<std::atomic<int>, 4096> owners_{};
};

class StressThread {
 public:
  StressThread(StressWorld& world, StressOwners& owners, int number, uint32_t seed);

  // One operation, chosen at random; aborts, saying which, when its outcome is not the model's.
  void Step();
  // Closes all that it has.
  void End();

  // For the watchdog: how many steps were made, and the last one.
  std::atomic<long> steps{0};
  std::atomic<const char*> last{"none"};

 private:
  enum class Kind { kNothing, kFile, kFresh, kConnected };
  struct Thing {
    Kind kind = Kind::kNothing;
    int names = 0;  // descriptors that are of it
    bool greeted = false;
  };
  static constexpr int kDescriptors = 12;

  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint32_t>(limit)); }
  int Pick() { return Below(kDescriptors); }
  // A place without a descriptor, emptied if need be.
  int Room();
  void Put(int place, int fd, int thing);
  int NewThing(Kind kind);
  Thing& At(int place) {
    return things_[static_cast<size_t>(things_at_[static_cast<size_t>(place)])];
  }
  int& Fd(int place) { return fds_[static_cast<size_t>(place)]; }
  void Expect(bool good, const char* what, long result) const;

  void Open();
  void Connect();
  void Disconnect();
  void Greet();
  void Duplicate();
  void Replace();
  void Pass();
  void Close(int place);
  void Fork();
  void Exec();
  // A child's: 0, or what was wrong.
  int InChild(int connected);

  StressWorld& world_;
  StressOwners& owners_;
  int number_;
  std::mt19937 random_;
  std::array<int, kDescriptors> fds_;
  std::array<int, kDescriptors> things_at_{};
  std::array<Thing, kDescriptors> things_{};
};

// Connects to the good and the bad one; 0, or what was wrong. Async-signal-safe.
int ConnectOnce(const StressWorld& world);

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_STRESS_MODEL_H_
