// A TCP server for very many short connections: says "hello" to everybody, and lets go of who has
// gone. No TIME_WAIT stays where its clients end with a reset.
#ifndef SHIM_TESTING_GREETER_H_
#define SHIM_TESTING_GREETER_H_

#include <atomic>
#include <cstdint>
#include <thread>

namespace latchkey::testing {

class Greeter {
 public:
  // On all addresses, IPv4, `port` or any; serves on a thread of its own. Aborts when it cannot.
  explicit Greeter(uint16_t port = 0);
  ~Greeter();
  Greeter(const Greeter&) = delete;
  Greeter& operator=(const Greeter&) = delete;

  uint16_t port() const { return port_; }
  // How many are connected.
  int clients() const { return clients_.load(); }
  // Returns when nobody is, or after 10 s.
  void AwaitNobody() const;

 private:
  void Serve();

  uint16_t port_ = 0;
  int listener_;
  int poller_;
  int stop_;
  std::atomic<int> clients_{0};
  std::thread thread_;
};

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_GREETER_H_
