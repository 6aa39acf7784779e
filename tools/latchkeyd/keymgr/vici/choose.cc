#include "tools/latchkeyd/keymgr/vici/choose.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/own.h"

namespace latchkey::broker::vici {
namespace {

// Linux's own choice of local ports: what a port that is not known yet will be among.
constexpr PortRange kEphemeral{32768, 60999};
constexpr int kProtocolBits = 8;

// How near a child came to do; the farthest step is the one worth telling.
enum class Step : uint8_t { kNone, kMode, kTraffic, kAddress, kPeer, kFits };

const char* Why(Step step) {
  switch (step) {
    case Step::kMode:
      return "is of another mode";
    case Step::kTraffic:
      return "has traffic selectors that do not cover the flow";
    case Step::kAddress:
      return "has no address to initiate to that is the flow's";
    case Step::kPeer:
      return "is for a peer that the rule does not allow";
    case Step::kNone:
    case Step::kFits:
      break;
  }
  return "does not fit";
}

enum class Entry : uint8_t { kAny, kAddress, kRange, kName };

struct AddressEntry {
  Entry kind = Entry::kName;
  TrafficSelector range;  // of kAddress and kRange
};

AddressEntry ReadEntry(const std::string& text) {
  if (text.starts_with("%any") || text == "0.0.0.0" || text == "::") return {Entry::kAny, {}};
  if (const std::optional<Address> address = Address::Parse(text)) {
    return {Entry::kAddress, {false, *address, *address, 0, {}}};
  }
  std::string range = text;
  // charon takes "10.0.0.1-10.0.0.9" here, and prints ranges of selectors with dots.
  if (const size_t dash = range.find('-'); dash != std::string::npos) range.replace(dash, 1, "..");
  if (const std::optional<TrafficSelector> read = ReadSelector(range); read && !read->dynamic) {
    return {Entry::kRange, *read};
  }
  return {};
}

bool Within(const TrafficSelector& range, const Address& address) {
  return address.family == range.low.family && range.low <= address && address <= range.high;
}

bool Unknown(const Address& address) { return address.family == Family::kNone || address.IsAny(); }

// True when `address` can be one of a connection's; a host name can be any, where `named`.
bool AmongAddresses(const std::vector<std::string>& texts, const Address& address, bool named) {
  return std::ranges::any_of(texts, [&](const std::string& text) {
    const AddressEntry entry = ReadEntry(text);
    return entry.kind == Entry::kAny ||
           (entry.kind == Entry::kName ? named : Within(entry.range, address));
  });
}

// Where charon would send the first packet: the first of the addresses that is no range.
struct Target {
  bool any = true;               // nowhere: it waits for the peer
  std::optional<Address> exact;  // nothing: a host name
};

Target TargetOf(const ConnConfig& conn) {
  for (const std::string& text : conn.remote_addresses) {
    const AddressEntry entry = ReadEntry(text);
    if (entry.kind == Entry::kRange) continue;
    if (entry.kind == Entry::kAny) break;
    if (entry.kind == Entry::kName) return {false, std::nullopt};
    return {false, entry.range.low};
  }
  return {};
}

int AddressBits(const TrafficSelector& selector) {
  const int bits = selector.low.Bits();
  for (int bit = 0; bit < bits; ++bit) {
    const auto octet = static_cast<size_t>(bit / 8);
    const int mask = 0x80 >> bit % 8;
    if (((selector.low.octets[octet] ^ selector.high.octets[octet]) & mask) != 0) return bits - bit;
  }
  return 0;
}

// Returns how much the narrowest selector that covers this end of the flow covers, in bits.
std::optional<int> Width(const std::vector<TrafficSelector>& selectors, uint8_t protocol,
                         const SocketAddress& end) {
  std::optional<int> narrowest;
  for (const TrafficSelector& selector : selectors) {
    if (selector.protocol != 0 && selector.protocol != protocol) continue;
    const bool ports = end.port == 0 ? selector.ports.Contains(kEphemeral.low) &&
                                           selector.ports.Contains(kEphemeral.high)
                                     : selector.ports.Contains(end.port);
    if (!ports) continue;
    if (!selector.dynamic && !Unknown(end.address) && !Within(selector, end.address)) continue;
    const uint32_t count = uint32_t{selector.ports.high} - selector.ports.low;
    const int width = (selector.dynamic ? 0 : AddressBits(selector)) +
                      static_cast<int>(std::bit_width(count)) +
                      (selector.protocol == 0 ? kProtocolBits : 0);
    if (!narrowest || width < *narrowest) narrowest = width;
  }
  return narrowest;
}

// True when an end's addresses are the IKE_SA's own: nothing but a `dynamic` selector covers it.
bool OnlyDynamic(const std::vector<TrafficSelector>& selectors, const Address& address) {
  return std::ranges::none_of(selectors, [&](const TrafficSelector& selector) {
    return !selector.dynamic && (Unknown(address) || Within(selector, address));
  });
}

bool MaySatisfy(const ConnConfig& conn, const PeerSpec& spec) {
  const std::string auth = conn.RemoteAuth();
  PeerSpec asked = spec;
  if (auth.empty()) asked.auth.clear();
  std::string id = conn.FixedRemoteId();
  if (id.empty()) {
    asked.ids.clear();
    id = "whoever comes";
  }
  return policy::PeerAllowed(asked, Identity{id, "", auth});
}

class Chooser {
 public:
  Chooser(const Wanted& wanted, const PeerOf& peer_of) : wanted_(wanted), peer_of_(peer_of) {}

  // Returns how far the child came, and how much it covers when it fits.
  std::pair<Step, int> Try(const ConnConfig& conn, const ChildConfig& child) const {
    const bool known = child.mode == Mode::kTransport || child.mode == Mode::kTunnel;
    if (!known || (wanted_.mode && *wanted_.mode != child.mode)) return {Step::kMode, 0};
    const Flow& flow = wanted_.flow;
    const std::optional<int> local = Width(child.local, flow.protocol, flow.local);
    const std::optional<int> remote = Width(child.remote, flow.protocol, flow.remote);
    if (!local || !remote) return {Step::kTraffic, 0};
    if (!AddressesFit(conn, child)) return {Step::kAddress, 0};
    if (!std::ranges::all_of(wanted_.peers,
                             [&conn](const PeerSpec& spec) { return MaySatisfy(conn, spec); })) {
      return {Step::kPeer, 0};
    }
    return {Step::kFits, *local + *remote};
  }

 private:
  bool AddressesFit(const ConnConfig& conn, const ChildConfig& child) const {
    const bool named = !wanted_.child.empty();
    const Flow& flow = wanted_.flow;
    const bool transport = child.mode == Mode::kTransport;
    const bool local_is_ours = transport || OnlyDynamic(child.local, flow.local.address);
    if (local_is_ours && !Unknown(flow.local.address) &&
        !AmongAddresses(conn.local_addresses, flow.local.address, true)) {
      return false;
    }
    const Address& peer = flow.remote.address;
    const bool remote_is_peer = transport || OnlyDynamic(child.remote, peer);
    const Target target = TargetOf(conn);
    if (target.any) {
      const std::optional<Address> up = peer_of_(conn.name);
      if (!up) return false;
      return !remote_is_peer || *up == peer;
    }
    if (!target.exact) return named;
    return !remote_is_peer || *target.exact == peer;
  }

  const Wanted& wanted_;
  const PeerOf& peer_of_;
};

struct Candidate {
  const ConnConfig* conn = nullptr;
  const ChildConfig* child = nullptr;
  int width = 0;
};

}  // namespace

Wanted WantedFor(const Flow& flow, const std::string& child, const policy::Demand& demand) {
  Wanted wanted{flow, child, {}, demand.mode};
  wanted.unique = demand.unique;
  wanted.algorithms = demand.algorithms;
  wanted.esn = demand.esn;
  for (const PeerSpec* peer : demand.peers) wanted.peers.push_back(*peer);
  return wanted;
}

Result<Choice> Choose(const std::vector<ConnConfig>& conns, const Wanted& wanted,
                      const PeerOf& peer_of) {
  const Chooser chooser(wanted, peer_of);
  std::vector<Candidate> fit;
  Step farthest = Step::kNone;
  std::string nearest;
  for (const ConnConfig& conn : conns) {
    if (FlowOfOwn(conn.name)) continue;
    for (const ChildConfig& child : conn.children) {
      if (!wanted.child.empty() && child.name != wanted.child) continue;
      const auto [step, width] = chooser.Try(conn, child);
      if (step == Step::kFits) fit.push_back({&conn, &child, width});
      if (step > farthest) {
        farthest = step;
        nearest = "child \"" + child.name + "\" of connection \"" + conn.name + "\" " + Why(step);
      }
    }
  }
  const std::string flow = wanted.flow.local.ToString() + " to " + wanted.flow.remote.ToString();
  if (fit.empty()) {
    if (nearest.empty() && !wanted.child.empty()) {
      nearest = "charon has no child \"" + wanted.child + "\"";
    }
    if (nearest.empty()) nearest = "charon has no children";
    return Fail(Reason::kNoChild, "find IKE child for " + flow, nearest);
  }
  const auto least = std::ranges::min_element(fit, {}, &Candidate::width);
  for (const Candidate& other : fit) {
    if (other.width != least->width || other.conn->RemoteId() == least->conn->RemoteId()) continue;
    return Fail(Reason::kAmbiguousPeer, "find IKE child for " + flow,
                "connections \"" + least->conn->name + "\" and \"" + other.conn->name +
                    "\" are for different peers and cover as much");
  }
  return Choice{least->conn->name, least->child->name};
}

}  // namespace latchkey::broker::vici
