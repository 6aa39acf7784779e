// Runs the probe under the shim, against a server of the test's own.
#ifndef SHIM_TESTING_HARNESS_H_
#define SHIM_TESTING_HARNESS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <thread>

namespace latchkey::testing {

// A TCP server on loopback; says "hello" to everybody. `closing`: and closes at once; else it holds
// the connection until the test ends. `silent`: says nothing and holds. `full`: takes nobody until
// it is opened (their SYNs are dropped), then is silent.
class Server {
 public:
  enum class Manner { kClosing, kHolding, kSilent, kFull };
  explicit Server(Manner manner = Manner::kClosing);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  uint16_t port() const { return port_; }
  void Open();

 private:
  void Serve() const;

  Manner manner_;
  int listener_;
  int filler_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

// A probe that runs. Killed after 20 s: a hang is a failure.
class Probe {
 public:
  // `environment` is all it gets beside LD_PRELOAD (one there comes behind the shim); when it is
  // empty it runs without the shim.
  Probe(const std::string& name, uint16_t port,
        const std::map<std::string, std::string>& environment);
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Returns its output up to and with the line `last`; all of it when `last` is empty.
  std::string ReadUntil(const std::string& last);
  void Continue();
  void Signal(int number) const;
  // Returns the rest of its output, and "status N" (or "signal N") unless it ended with 0.
  std::string Finish();
  std::string errors();

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  int error_ = -1;
};

// What a probe prints of a call: its name, and what it said.
inline std::string Line(const std::string& what, int value) {
  return what + " " + std::to_string(value) + "\n";
}

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_HARNESS_H_
