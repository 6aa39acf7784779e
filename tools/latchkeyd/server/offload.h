// Runs what a client can make wait on threads of their own, so that the broker's own never does.
//
// A descriptor that a client passed is a stranger: closing the last one of a socket with SO_LINGER
// waits until its data is gone (inet_release), and any call on a file of a FUSE file system waits
// for whoever serves it. Jobs touch nothing that belongs to the broker's thread. One user's jobs
// take at most 16 threads; what he stalls beyond that is his own.
#ifndef TOOLS_LATCHKEYD_SERVER_OFFLOAD_H_
#define TOOLS_LATCHKEYD_SERVER_OFFLOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace latchkey::broker {

class Offload {
 public:
  // Starts no thread: the first job does. Privileges are a thread's own, so the first job must come
  // after they were dropped.
  Offload();
  // Leaves jobs that wait to themselves: they end with the process.
  ~Offload();
  Offload(const Offload&) = delete;
  Offload& operator=(const Offload&) = delete;

  // Runs `job` on account of user `uid`, in no order with others. It must not throw.
  void Run(uint32_t uid, std::function<void()> job);
  // Closes a descriptor.
  void Close(uint32_t uid, int fd);
  // How many jobs of a user are not done yet.
  size_t Pending(uint32_t uid) const;

 private:
  struct State;
  static void Work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_OFFLOAD_H_
