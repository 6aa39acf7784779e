#include "tools/latchkey/explain_pad.h"

#include <algorithm>

namespace latchkey::tool {

std::vector<PadName> NamesByPad(const policy::Pad& pad, const Flow& flow,
                                const policy::Demand& demand) {
  std::vector<PadName> names;
  for (const policy::PadEntry& entry : pad.entries) {
    if (demand.reqid != 0 && entry.reqid != 0 && entry.reqid != demand.reqid) continue;
    const bool about = entry.remote.empty() ||
                       std::ranges::find(entry.remote, flow.remote.address) != entry.remote.end();
    const bool tunnel = demand.mode == Mode::kTunnel;
    if (!about && !tunnel) continue;
    const Address& remote = about ? flow.remote.address : entry.remote.front();
    const policy::PadEntry* found = pad.Find(entry.reqid, entry.spi, entry.spi_destination, remote);
    PadName name{entry.reqid, entry.spi, "", false};
    if (found != nullptr) {
      name.peer_id = found->identity.peer_id;
      name.fits = std::ranges::all_of(demand.peers, [&](const PeerSpec* peer) {
        return policy::PeerAllowed(*peer, found->identity);
      });
    }
    if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace latchkey::tool
