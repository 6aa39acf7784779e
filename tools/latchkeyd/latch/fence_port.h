// What the broker needs of the kernel for the fence: a cgroup for a program, out of which nothing
// of an inet socket goes, and into which nothing comes, that was not decided. `kernel/fence.h`
// implements it; fake_fence.h beside this file stands in for it in tests. Every call returns at
// once.
#ifndef TOOLS_LATCHKEYD_LATCH_FENCE_PORT_H_
#define TOOLS_LATCHKEYD_LATCH_FENCE_PORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "shim/wire/page.h"

namespace latchkey::broker {

// What was decided about a socket.
struct FenceDecision {
  enum class Kind : uint8_t {
    kFlow,     // it may have to do with `remote`: latched to it, or let go there in clear
    kPassive,  // a listener, or what it accepted: whoever comes, but it may begin nothing
    kHeld,     // an unconnected UDP socket that the kernel holds to its latches
    kClear,    // an unconnected UDP socket that no latch holds: by the rules; and with `remote`
    kLatched,  // a connected UDP socket that the kernel holds to its latch; with `remote`, one that
               // goes there in clear
    kHost,     // as kFlow, as long as it leaves by `device`, which brings it back to this host
  };
  Kind kind = Kind::kFlow;
  SocketAddress remote;
  uint32_t device = 0;  // its number

  bool operator==(const FenceDecision&) const = default;
};

// What a fence has stopped since it was last asked: how often, and the last of them.
struct FenceStop {
  enum class Kind : uint8_t { kConnect, kSend, kSocket, kOut, kIn };
  uint64_t fence = 0;
  Kind kind = Kind::kConnect;
  uint64_t count = 0;
  uint8_t protocol = 0;
  SocketAddress remote;  // kSocket: its family's any
};

// Of what comes in: true where a rule is about it, so that none does before it was asked about.
struct FenceIncoming {
  bool datagrams = false;
  bool connections = false;
};

class FencePort {
 public:
  virtual ~FencePort() = default;

  // Why there can be no fence here; empty when there can.
  virtual std::string Lacking() const = 0;

  // Puts a process, and all that it will start, into a cgroup of its own with the fence `id` (not
  // 0) around it; SetRules() has said what passes. Sockets that it has already stay outside.
  // kUnsupported, kKernelRefused: it is where it was.
  virtual Result<void> Enclose(uint64_t id, int32_t pid) = 0;
  // Says what passes undecided: what the page lets its shims settle as bypass, and what comes in
  // that no rule is about.
  virtual Result<void> SetRules(uint64_t id, const wire::Page& page, FenceIncoming incoming) = 0;

  // Notes on a socket, of any fence or of none, what was decided; its children begin with it.
  // Before there has been a fence nothing is noted: no socket can be in one.
  virtual Result<void> Decide(int fd, const FenceDecision& decision) = 0;
  // It is undecided again.
  virtual void Forget(int fd) = 0;

  // The fences that stand, those of a broker before us too.
  virtual std::vector<uint64_t> Fences() const = 0;
  // Takes a fence away if nothing is left in it. True when it is gone.
  virtual bool Release(uint64_t id) = 0;
  virtual std::vector<FenceStop> TakeStops() = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FENCE_PORT_H_
