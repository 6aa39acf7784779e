// SPD entries, SAs and incidents as the control program asks for them: to and from the wire.
#ifndef TOOLS_LATCHKEYD_LATCH_RECORDS_H_
#define TOOLS_LATCHKEYD_LATCH_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "policy/model/flow.h"
#include "shim/wire/messages.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

// An SPD entry, and whose it is.
struct OwnedEntry {
  SpdEntry entry;
  wire::Owner owner = wire::Owner::kSystem;
  uint64_t latch = 0;  // kLatch: one that needs it

  bool operator==(const OwnedEntry&) const = default;
};

// A refusal, or a latch that broke: what `latchkey why` tells.
struct Incident {
  uint64_t id = 0;
  uint64_t time = 0;   // seconds since 1970
  uint64_t latch = 0;  // 0: refused, none was made
  wire::Reason reason = wire::Reason::kNone;
  Flow flow;
  uint32_t pid = 0;
  uint32_t uid = 0;
  std::string program;
  std::string policy;
  std::string detail;
  std::string rule = {};  // "FILE:LINE: rule "NAME"", under which the flow falls; empty: under none

  bool operator==(const Incident&) const = default;
};

// Strings too long for the wire are cut. A record whose strings do not end, or whose enumerators
// are none, gives nothing.
wire::SpdRecord ToRecord(const OwnedEntry& owned);
std::optional<OwnedEntry> FromRecord(const wire::SpdRecord& record);
wire::SaRecord ToRecord(const KnownSa& known);
std::optional<KnownSa> FromRecord(const wire::SaRecord& record);
wire::IncidentRecord ToRecord(const Incident& incident);
std::optional<Incident> FromRecord(const wire::IncidentRecord& record);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_RECORDS_H_
