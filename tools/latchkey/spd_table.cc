#include "tools/latchkey/spd_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tools/latchkey/latch_json.h"

namespace latchkey::tool {
namespace {

using broker::OwnedEntry;
using Json = nlohmann::json;

std::string DirText(uint8_t dir) {
  constexpr const char* kNames[] = {"in", "out", "fwd", "socket-in", "socket-out"};
  return dir < std::size(kNames) ? kNames[dir] : "?";
}

std::string EndText(const Prefix& prefix, uint16_t port, uint16_t mask) {
  std::string text =
      prefix.base.family == Family::kNone || prefix.length == 0 ? "any" : prefix.ToString();
  if (mask == 0xffff) {
    text += fmt::format(" port {}", port);
  } else if (mask != 0) {
    text += fmt::format(" port {}/{:#06x}", port, mask);
  }
  return text;
}

std::string ActionText(const SpdEntry& entry) {
  if (entry.block) return "block";
  if (entry.bare) return "allow";
  std::string text = SaProtocolWord(entry.protocol) + " " + ModeWord(entry.mode);
  if (entry.reqid != 0) text += fmt::format(" reqid {}", entry.reqid);
  return text;
}

// The kernel lists the policies of sockets too, and not whose they are: a latch's are listed once
// more with their latch.
std::string OwnerText(const OwnedEntry& owned) {
  if (owned.entry.dir > 2) return "some socket";
  switch (owned.owner) {
    case wire::Owner::kSystem:
      return "system";
    case wire::Owner::kGuard:
      return "guard";
    case wire::Owner::kLatch:
      return fmt::format("latch {}", owned.latch);
  }
  return "?";
}

// What a latch's socket carries.
std::string SocketText(const Latch& latch) {
  if (latch.state == State::kBroken) return "block";
  if (latch.clear) return "allow CLEAR";
  return fmt::format("{} {} reqid {}", SaProtocolWord(latch.protection.protocol),
                     ModeWord(latch.protection.mode), latch.reqid);
}

bool HasSocketPolicy(const Latch& latch) {
  return latch.state == State::kEstablished || latch.state == State::kBroken;
}

}  // namespace

std::string SpdText(const SpdEntry& entry) {
  const Selector& s = entry.selector;
  std::string text = fmt::format("{} priority {} {} -> {}", DirText(entry.dir), entry.priority,
                                 EndText(s.source, s.source_port, s.source_mask),
                                 EndText(s.destination, s.destination_port, s.destination_mask));
  if (s.protocol != 0) text += " " + ProtocolWord(s.protocol);
  return text + ": " + ActionText(entry);
}

std::string SpdTable(const std::vector<OwnedEntry>& spd, const std::vector<Latch>& latches) {
  using Row = std::array<std::string, 8>;
  std::vector<Row> rows = {
      {"OWNER", "DIR", "PRIORITY", "MARK", "PROTO", "SOURCE", "DESTINATION", "ACTION"}};
  for (const OwnedEntry& owned : spd) {
    const SpdEntry& entry = owned.entry;
    const Selector& s = entry.selector;
    rows.push_back(
        {OwnerText(owned), DirText(entry.dir), std::to_string(entry.priority),
         entry.mark_mask == 0 ? "-" : fmt::format("{:#x}/{:#x}", entry.mark, entry.mark_mask),
         s.protocol == 0 ? "any" : ProtocolWord(s.protocol),
         EndText(s.source, s.source_port, s.source_mask),
         EndText(s.destination, s.destination_port, s.destination_mask), ActionText(entry)});
  }
  for (const Latch& latch : latches) {
    if (!HasSocketPolicy(latch)) continue;
    rows.push_back({fmt::format("latch {}", latch.id), "socket", "-", "-",
                    ProtocolWord(latch.flow.protocol), latch.flow.local.ToString(),
                    latch.flow.remote.ToString(), SocketText(latch)});
  }
  std::array<size_t, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      table += row[i];
      if (i + 1 < row.size()) table.append(widths[i] - row[i].size() + 2, ' ');
    }
    table += '\n';
  }
  return table;
}

std::string SpdJson(const std::vector<OwnedEntry>& spd, const std::vector<Latch>& latches) {
  Json entries = Json::array();
  for (const OwnedEntry& owned : spd) {
    const SpdEntry& entry = owned.entry;
    const Selector& s = entry.selector;
    entries.push_back(
        {{"owner", OwnerText(owned)},
         {"direction", DirText(entry.dir)},
         {"priority", entry.priority},
         {"index", entry.index},
         {"mark", entry.mark},
         {"mark_mask", entry.mark_mask},
         {"if_id", entry.if_id},
         {"protocol", s.protocol == 0 ? "any" : ProtocolWord(s.protocol)},
         {"source", EndText(s.source, s.source_port, s.source_mask)},
         {"destination", EndText(s.destination, s.destination_port, s.destination_mask)},
         {"action", ActionText(entry)}});
  }
  Json sockets = Json::array();
  for (const Latch& latch : latches) {
    if (!HasSocketPolicy(latch)) continue;
    sockets.push_back({{"latch", latch.id},
                       {"local", latch.flow.local.ToString()},
                       {"remote", latch.flow.remote.ToString()},
                       {"clear", latch.clear},
                       {"action", SocketText(latch)}});
  }
  const Json document = {{"schema", 1}, {"spd", entries}, {"sockets", sockets}};
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace latchkey::tool
