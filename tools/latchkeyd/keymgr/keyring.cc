#include "tools/latchkeyd/keymgr/keyring.h"

#include <unistd.h>

#include <optional>

namespace latchkey::broker {

Keyring::Keyring(const std::string& pad, const std::string& vici,
                 const std::function<void(const std::string&)>& log)
    : vici_path_(vici), manual_(pad, log), vici_({.path = vici, .now_ms = {}, .log = log}) {}

Identified Keyring::Identify(const Sa& sa, bool inbound) {
  Identified by_pad = manual_.Identify(sa, inbound);
  if (!by_pad.known()) return vici_.Identify(sa, inbound);
  const std::optional<Identified> by_ike = vici_.Known(sa, inbound);
  if (by_ike && by_ike->known() && by_ike->verified.identity != by_pad.verified.identity) {
    return Identified::Nobody(Reason::kAmbiguousPeer);
  }
  return by_pad;
}

Result<uint64_t> Keyring::Acquire(const AcquireRequest& request) {
  Result<uint64_t> ticket = vici_.Acquire(request);
  if (ticket || vici_.connected() || access(vici_path_.c_str(), F_OK) == 0) return ticket;
  return manual_.Acquire(request);
}

}  // namespace latchkey::broker
