// The fence: the programs of fence_program.bpf.c around cgroups, and what they go by.
//
// Attached to a cgroup (not by a link), the programs stay as long as it: neither a broker's end nor
// its death opens a fence. With pins a later broker finds maps and cgroups again, and goes on
// deciding; without, what it decides the old fences do not hear of. A decision is kept by the
// kernel in the socket and goes with it. Limits: fence_layout.h. Belongs to one thread.
#ifndef TOOLS_LATCHKEYD_KERNEL_FENCE_H_
#define TOOLS_LATCHKEYD_KERNEL_FENCE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/bpf_object.h"
#include "tools/latchkeyd/kernel/cgroups.h"
#include "tools/latchkeyd/kernel/fence_layout.h"
#include "tools/latchkeyd/latch/fence_port.h"

namespace latchkey::broker {

class Fence : public FencePort {
 public:
  // `pins`: as of LoadBpf(). `held`: RegionMaps() of the filter that holds sockets, by which the
  // fence knows where a held one may send to in clear; without, none of them may send anywhere in
  // clear but to its own host. Never fails: Lacking() says what does.
  explicit Fence(const std::string& pins, const std::map<std::string, int>& held = {});
  // Takes the pins away where no fence stands.
  ~Fence() override;
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  std::string Lacking() const override;
  // Why a later broker will not find the fences; empty when it will, or need not.
  std::string Complaint() const;

  Result<void> Enclose(uint64_t id, int32_t pid) override;
  Result<void> SetRules(uint64_t id, const wire::Page& page, FenceIncoming incoming) override;
  Result<void> Decide(int fd, const FenceDecision& decision) override;
  void Forget(int fd) override;
  std::vector<uint64_t> Fences() const override;
  bool Release(uint64_t id) override;
  std::vector<FenceStop> TakeStops() override;

 private:
  struct Standing {
    std::string path;
    latchkey_stops told{};
    bool apart = false;  // its programs are not ours, and look into other maps
  };

  int Map(const char* name) const { return object_->maps.at(name).get(); }
  void Inherit();
  Result<void> Attach(uint64_t id, const std::string& path);
  void Erase(uint64_t id) const;

  Result<BpfObject> object_;
  Result<Cgroups> cgroups_;
  uint32_t held_ = 0;  // the number of the map of held sockets
  std::map<uint64_t, Standing> standing_;
  // There has been a fence, of a broker before us too, and sockets that were made in one outlive
  // it. Before that nobody looks at what is decided, and noting it would cost each connect 4 us.
  bool stood_ = false;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_FENCE_H_
