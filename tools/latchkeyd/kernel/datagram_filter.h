// The filter on unconnected UDP sockets: what each may take in, kept in the maps of the kernel's
// program. Implements KernelPort's calls of the same names.
//
// Limits, for all sockets of a network namespace: datagram_layout.h (65,536 sockets, 262,144
// admissions, 65,536 regions of one address and port, 65,536 others); past them kLimit. The empty
// maps take 8 MB of the kernel's memory, an admission 64 octets. One filter belongs to one thread.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_FILTER_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_FILTER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/datagram_layout.h"
#include "tools/latchkeyd/kernel/datagram_maps.h"
#include "tools/latchkeyd/kernel/datagram_regions.h"
#include "tools/latchkeyd/kernel/datagram_slots.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

struct DatagramOptions {
  uint32_t tag_mask = 0;  // bits of a mark that are an SA's tag
  std::string pins;       // LoadDatagramMaps(): empty: nothing outlives the broker but what it set
};

class DatagramFilter {
 public:
  // Never fails: where there can be no filter, what is asked of it later says why.
  explicit DatagramFilter(const DatagramOptions& options);
  // Takes the pins away where no socket is held.
  ~DatagramFilter();
  DatagramFilter(const DatagramFilter&) = delete;
  DatagramFilter& operator=(const DatagramFilter&) = delete;

  // Why there is no filter, or why a later broker will not find it; empty when all is well.
  std::string Complaint() const;
  // The kernel's maps of what sockets may take in, by name; none where there is no filter.
  std::map<std::string, int> RegionMaps() const;
  // A later broker is to find them also where no socket is held any more: fences look into them.
  void KeepPins() { keeps_pins_ = true; }
  // Cookies of the sockets that have regions; those of a broker before us too.
  std::vector<uint64_t> Held() const;

  // A socket changes its regions at once: between the old and the new nothing else holds. Where
  // none but regions of one port come or go, each of them does; else all are written anew.
  Result<void> Filter(int fd, uint64_t cookie, const std::vector<DatagramRegion>& regions);
  Result<void> Admit(const DatagramAdmission& admission);
  void Dismiss(const DatagramAdmission& admission);
  void Forget(uint64_t cookie);
  uint64_t Dropped(uint64_t cookie) const;
  // What a broker before us admitted under a tag, and we have not, ends: the tag is to mean another
  // SA. Filter() does the same for a socket.
  void DropInherited(uint32_t tag);

 private:
  AdmissionMaps Admissions() const;
  void Inherit();
  Result<void> Add(const RegionEntries& entries) const;
  void Delete(const RegionEntries& entries) const;
  // Where it fails, all is as it was, in the kernel too.
  Result<void> Apply(const ExactChange& change, RegionEntries& entries) const;
  Result<void> FilterAnew(int fd, uint64_t cookie, const std::vector<DatagramRegion>& regions,
                          const std::optional<latchkey_held>& before);
  Result<void> Attach(int fd) const;
  bool IsAttached(int fd) const;
  void DropInheritedOf(uint64_t cookie);

  const uint32_t tag_mask_;
  Result<DatagramMaps> maps_;
  bool keeps_pins_ = false;
  std::unordered_map<uint64_t, RegionEntries> entries_;  // by cookie
  std::set<DatagramAdmission> admitted_;
  std::set<DatagramAdmission> inherited_;  // those of `admitted_` that we have not made
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_FILTER_H_
