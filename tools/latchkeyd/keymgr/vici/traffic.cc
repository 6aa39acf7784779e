#include "tools/latchkeyd/keymgr/vici/traffic.h"

#include <optional>
#include <string>

#include "tools/latchkeyd/keymgr/vici/conns.h"

namespace latchkey::broker::vici {
namespace {

// Far more than anybody has; beyond it every packet's fate would be a long search.
constexpr size_t kMost = 64;

// The prefix whose first and last addresses these are; nothing where there is none.
std::optional<Prefix> ToPrefix(const Address& low, const Address& high) {
  int length = 0;
  while (length < low.Bits()) {
    const auto octet = static_cast<size_t>(length / 8);
    const auto mask = static_cast<uint8_t>(0x80 >> length % 8);
    if ((low.octets[octet] & mask) != (high.octets[octet] & mask)) break;
    ++length;
  }
  for (int bit = length; bit < low.Bits(); ++bit) {
    const auto octet = static_cast<size_t>(bit / 8);
    const auto mask = static_cast<uint8_t>(0x80 >> bit % 8);
    if ((low.octets[octet] & mask) != 0 || (high.octets[octet] & mask) == 0) return std::nullopt;
  }
  return Prefix{low, static_cast<uint8_t>(length)};
}

struct End {
  Prefix prefix;
  uint8_t protocol = 0;
  uint16_t port = 0, mask = 0;
};

std::optional<std::vector<End>> ReadEnds(const std::vector<std::string>& texts) {
  std::vector<End> ends;
  for (const std::string& text : texts) {
    const std::optional<TrafficSelector> read = ReadSelector(text);
    if (!read || read->dynamic) return std::nullopt;
    const std::optional<Prefix> prefix = ToPrefix(read->low, read->high);
    const bool any = read->ports == PortRange{};
    if (!prefix || (!any && read->ports.low != read->ports.high)) return std::nullopt;
    End end{*prefix, read->protocol, 0, 0};
    if (!any) {
      end.port = read->ports.low;
      end.mask = 0xffff;
    }
    ends.push_back(end);
  }
  return ends;
}

}  // namespace

std::vector<Selector> Traffic(const ChildSa& child) {
  if (child.mode != Mode::kTunnel || child.local_ts.size() * child.remote_ts.size() > kMost) {
    return {};
  }
  const std::optional<std::vector<End>> locals = ReadEnds(child.local_ts);
  const std::optional<std::vector<End>> remotes = ReadEnds(child.remote_ts);
  if (!locals || !remotes) return {};
  std::vector<Selector> traffic;
  for (const End& local : *locals) {
    for (const End& remote : *remotes) {
      const Family family = local.prefix.base.family;
      if (family != remote.prefix.base.family) continue;
      if (local.protocol != 0 && remote.protocol != 0 && local.protocol != remote.protocol) {
        continue;
      }
      Selector selector;
      selector.family = family;
      selector.source = local.prefix;
      selector.destination = remote.prefix;
      selector.protocol = local.protocol != 0 ? local.protocol : remote.protocol;
      selector.source_port = local.port;
      selector.source_mask = local.mask;
      selector.destination_port = remote.port;
      selector.destination_mask = remote.mask;
      traffic.push_back(selector);
    }
  }
  return traffic;
}

}  // namespace latchkey::broker::vici
