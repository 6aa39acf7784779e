#include "tools/latchkey/latch_table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>

#include "tools/latchkey/latch_json.h"

namespace latchkey::tool {
namespace {

constexpr size_t kColumns = 9;
using Row = std::array<std::string, kColumns>;

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

// "esp/aes-cbc:256/hmac-sha2-256": one word, so that the columns can be cut apart.
std::string ProtectionWord(const Protection& protection) {
  std::string word = SaProtocolWord(protection.protocol);
  if (word.empty()) return word;
  if (protection.mode != Mode::kTransport) word += "/" + ModeWord(protection.mode);
  if (!protection.encryption.empty()) {
    word += "/" + protection.encryption;
    if (protection.key_bits != 0) word += ":" + std::to_string(protection.key_bits);
  }
  if (!protection.integrity.empty()) word += "/" + protection.integrity;
  return word;
}

// What protects a latch, in one word; loud where nothing does.
std::string HowWord(const Latch& latch) {
  if (latch.clear) return "CLEAR";
  std::string word = ProtectionWord(latch.protection);
  if (latch.implicit && !word.empty()) word += "(implicit)";
  return word;
}

std::string EndpointText(const SocketAddress& endpoint) {
  return endpoint.address.family == Family::kNone ? "-" : endpoint.ToString();
}

std::string RemoteText(const Latch& latch) {
  if (latch.state == State::kListener) return "*";
  if (!AnyPort(latch)) return EndpointText(latch.flow.remote);
  const std::string text = EndpointText(latch.flow.remote);
  return text.substr(0, text.size() - 1) + "*";
}

std::string OuterText(const Peering& peering) {
  if (peering.local.address.family == Family::kNone &&
      peering.remote.address.family == Family::kNone) {
    return {};
  }
  return EndpointText(peering.local) + " and " + EndpointText(peering.remote);
}

std::string NatText(const Peering& peering) {
  if (!NatKnown(peering)) return {};
  if (peering.nat_local && peering.nat_remote) return "local and remote";
  if (peering.nat_local) return "local";
  return peering.nat_remote ? "remote" : "no";
}

// Returns the length in octets of the well-formed UTF-8 character that `text` begins with and its
// code point; 0 when there is none (RFC 3629: shortest form, no surrogates).
size_t Decode(std::string_view text, uint32_t& code) {
  const auto octet = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = octet(0);
  if (first < 0x80) {
    code = first;
    return 1;
  }
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length == 0 || first > 0xf4 || text.size() < length) return 0;
  code = first & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((octet(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (octet(i) & 0x3fu);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 0;
  return length;
}

bool Harmless(uint32_t code) {
  if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '\\') return false;
  if (code >= 0x200b && code <= 0x200f) return false;  // zero-width, direction marks
  if (code >= 0x2028 && code <= 0x202e) return false;  // line separators, direction overrides
  return !(code >= 0x2066 && code <= 0x2069) && code != 0xfeff;
}

// Characters, not octets: continuation octets take no column.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string printable;
  while (!text.empty()) {
    uint32_t code = 0;
    const size_t length = Decode(text, code);
    if (length != 0 && Harmless(code)) {
      printable += text.substr(0, length);
    } else if (code == '\\' && length == 1) {
      printable += "\\\\";
    } else if (text.front() == '\n' || text.front() == '\t') {
      printable += text.front() == '\n' ? "\\n" : "\\t";
    } else {
      for (size_t i = 0; i < std::max<size_t>(length, 1); ++i) {
        char escape[8];
        std::snprintf(escape, sizeof(escape), "\\x%02x", static_cast<unsigned char>(text[i]));
        printable += escape;
      }
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return printable;
}

std::string ListTable(const std::vector<Latch>& latches) {
  std::vector<Row> rows{
      {"ID", "STATE", "PROTO", "LOCAL", "REMOTE", "PEER", "PROTECTION", "PROGRAM", "PID"}};
  for (const Latch& latch : latches) {
    rows.push_back({std::to_string(latch.id), StateName(latch.state),
                    OrDash(ProtocolWord(latch.flow.protocol)), EndpointText(latch.flow.local),
                    RemoteText(latch), OrDash(Printable(latch.identity.peer_id)),
                    OrDash(Printable(HowWord(latch))), OrDash(Printable(latch.program)),
                    latch.pid == 0 ? "-" : std::to_string(latch.pid)});
  }
  std::array<size_t, kColumns> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string table;
  for (const Row& row : rows) {
    for (size_t i = 0; i < kColumns; ++i) {
      table += row[i];
      if (i + 1 < kColumns) table.append(widths[i] - Width(row[i]) + 2, ' ');
    }
    table += '\n';
  }
  return table;
}

std::string ShowText(const Latch& latch) {
  std::string text;
  const auto line = [&text](const char* name, const std::string& value) {
    text += std::string(name) + ": " + OrDash(Printable(value)) + "\n";
  };
  const Protection& protection = latch.protection;
  const bool known = protection.protocol != SaProtocol::kNone;
  line("id", std::to_string(latch.id));
  line("state", StateName(latch.state));
  line("meaning", StateSentence(latch.state));
  line("reason", latch.reason == wire::Reason::kNone ? "" : wire::ReasonWord(latch.reason));
  line("protocol", ProtocolWord(latch.flow.protocol));
  line("local", EndpointText(latch.flow.local));
  line("remote", RemoteText(latch));
  line("peer_id", latch.identity.peer_id);
  line("local_id", latch.identity.local_id);
  line("auth", latch.identity.auth);
  line("protection", latch.clear ? "CLEAR" : known ? SaProtocolWord(protection.protocol) : "");
  line("mode", known ? ModeWord(protection.mode) : "");
  line("encryption", protection.encryption);
  line("integrity", protection.integrity);
  line("key_bits", protection.key_bits == 0 ? "" : std::to_string(protection.key_bits));
  line("replay", !known ? "" : protection.replay ? "yes" : "no");
  line("esn", !known ? "" : protection.esn ? "yes" : "no");
  line("qop", known ? kQop : "");
  line("reqid", latch.reqid == 0 ? "" : std::to_string(latch.reqid));
  line("spi_in", latch.spi_in == 0 ? "" : SpiText(latch.spi_in));
  line("spi_out", latch.spi_out == 0 ? "" : SpiText(latch.spi_out));
  line("pin", known ? PinWord(latch.pin) : "");
  line("program", latch.program);
  line("pid", latch.pid == 0 ? "" : std::to_string(latch.pid));
  line("uid", std::to_string(latch.uid));
  line("policy", latch.policy);
  line("rule", latch.rule);
  line("since", latch.since == 0 ? "" : Rfc3339(latch.since));
  line("disposition", DispositionWord(latch));
  line("implicit", latch.implicit ? "yes" : "no");
  line("clear", latch.clear ? "yes" : "no");
  line("offload", OffloadWord(latch));
  line("outer", OuterText(latch.peering));
  line("nat", NatText(latch.peering));
  line("listener", latch.listener == 0 ? "" : std::to_string(latch.listener));
  line("dropped", CountsDropped(latch) ? std::to_string(latch.dropped) : "");
  return text;
}

}  // namespace latchkey::tool
