#include "tools/latchkeyd/server/journal_line.h"

#include <fmt/compile.h>
#include <fmt/format.h>

#include <iterator>
#include <map>
#include <utility>

namespace latchkey::broker {
namespace {

using Text = fmt::memory_buffer;

template <typename Format, typename... Arguments>
void Put(Text& text, const Format& format, const Arguments&... arguments) {
  fmt::format_to(std::back_inserter(text), format, arguments...);
}

template <typename Enum>
int Number(Enum value) {
  return static_cast<int>(value);
}

// Paths and peer names are octets, JSON strings are characters: each octet becomes the character of
// its number, so that every string comes back as it was.
void PutString(Text& text, std::string_view octets) {
  text.push_back('"');
  for (const char c : octets) {
    const auto octet = static_cast<unsigned char>(c);
    if (octet < 0x20) {
      Put(text, FMT_COMPILE("\\u{:04x}"), octet);
    } else if (octet >= 0x80) {
      text.push_back(static_cast<char>(0xc0 | octet >> 6));
      text.push_back(static_cast<char>(0x80 | (octet & 0x3f)));
    } else {
      if (c == '"' || c == '\\') text.push_back('\\');
      text.push_back(c);
    }
  }
  text.push_back('"');
}

void PutNamed(Text& text, std::string_view name, std::string_view octets) {
  Put(text, FMT_COMPILE(",\"{}\":"), name);
  PutString(text, octets);
}

void PutAddress(Text& text, std::string_view name, const SocketAddress& address) {
  if (address.address.family == Family::kNone) {
    Put(text, FMT_COMPILE(",\"{}\":null"), name);
  } else {
    Put(text, FMT_COMPILE(",\"{}\":[\"{}\",{}]"), name, address.address.ToString(), address.port);
  }
}

void PutPrefix(Text& text, std::string_view name, const Prefix& prefix) {
  if (prefix.base.family == Family::kNone) {
    Put(text, FMT_COMPILE(",\"{}\":null"), name);
  } else {
    Put(text, FMT_COMPILE(",\"{}\":\"{}\""), name, prefix.ToString());
  }
}

void PutSelector(Text& text, const Selector& s) {
  PutPrefix(text, "source", s.source);
  PutPrefix(text, "destination", s.destination);
  Put(text, FMT_COMPILE(",\"family\":{},\"protocol\":{},\"ports\":[{},{},{},{}]"), Number(s.family),
      s.protocol, s.source_port, s.source_mask, s.destination_port, s.destination_mask);
}

void PutIdentity(Text& text, const Identity& identity) {
  Put(text, FMT_COMPILE(",\"identity\":["));
  PutString(text, identity.peer_id);
  text.push_back(',');
  PutString(text, identity.local_id);
  text.push_back(',');
  PutString(text, identity.auth);
  text.push_back(']');
}

void PutProtection(Text& text, const Protection& p) {
  Put(text, FMT_COMPILE(",\"protection\":[{},{},"), Number(p.protocol), Number(p.mode));
  PutString(text, p.encryption);
  text.push_back(',');
  PutString(text, p.integrity);
  Put(text, FMT_COMPILE(",{},{},{}]"), p.key_bits, p.replay, p.esn);
}

// Begins an object, whose first member it is.
void PutKey(Text& text, const SaKey& key) {
  Put(text, FMT_COMPILE("{{\"spi\":{},\"sa_protocol\":{}"), key.spi, Number(key.protocol));
  PutAddress(text, "to", {key.destination, 0});
}

void PutVoucher(Text& text, const Voucher& voucher) {
  const Sa& sa = voucher.sa;
  PutKey(text, sa.key);
  PutAddress(text, "from", {sa.source, 0});
  Put(text, FMT_COMPILE(",\"reqid\":{},\"mark\":[{},{}],\"if_id\":{},\"offload\":{},\"added\":{}"),
      sa.reqid, sa.mark, sa.mark_mask, sa.if_id, Number(sa.offload), sa.added);
  if (sa.set_mark != 0 || sa.set_mask != 0) {
    Put(text, FMT_COMPILE(",\"set_mark\":[{},{}]"), sa.set_mark, sa.set_mask);
  }
  PutSelector(text, sa.selector);
  PutProtection(text, sa.protection);
  PutIdentity(text, voucher.identity);
  Put(text, FMT_COMPILE(",\"traffic\":["));
  for (size_t i = 0; i < voucher.traffic.size(); ++i) {
    Put(text, FMT_COMPILE("{}{{\"of\":{}"), i > 0 ? "," : "", i);
    PutSelector(text, voucher.traffic[i]);
    text.push_back('}');
  }
  Put(text, FMT_COMPILE("]}}"));
}

void PutGuard(Text& text, const Guard& guard) {
  Put(text, FMT_COMPILE("{{\"out\":{},\"action\":{},\"reqid\":{},\"priority\":{},\"mark\":{}"),
      guard.out, Number(guard.action), guard.reqid, guard.priority, guard.mark);
  if (guard.unset != 0) Put(text, FMT_COMPILE(",\"unset\":{}"), guard.unset);
  if (guard.mode != Mode::kTransport || guard.ends != TunnelEnds{}) {
    Put(text, FMT_COMPILE(",\"mode\":{}"), Number(guard.mode));
    PutAddress(text, "outer_local", {guard.ends.local, 0});
    PutAddress(text, "outer_remote", {guard.ends.remote, 0});
  }
  PutSelector(text, guard.selector);
  text.push_back('}');
}

// Between whom a latch is, and by what.
void PutTerms(Text& text, const Latch& latch) {
  Put(text, FMT_COMPILE(",\"direction\":{}"), Number(latch.flow.direction));
  PutAddress(text, "local", latch.flow.local);
  PutAddress(text, "remote", latch.flow.remote);
  PutAddress(text, "outer_local", latch.peering.local);
  PutAddress(text, "outer_remote", latch.peering.remote);
  Put(text, FMT_COMPILE(",\"nat\":[{},{}]"), latch.peering.nat_local, latch.peering.nat_remote);
  PutIdentity(text, latch.identity);
  PutProtection(text, latch.protection);
  Put(text, FMT_COMPILE(",\"pin\":{},\"reqid\":{},\"spi\":[{},{}]"), Number(latch.pin), latch.reqid,
      latch.spi_in, latch.spi_out);
  PutNamed(text, "rule", latch.rule);
  Put(text, FMT_COMPILE(",\"implicit\":{},\"since\":{}"), latch.implicit, latch.since);
}

// Peers' latches that the administrator broke: state, reason and owner go without saying.
void PutBrokenPeers(Text& text, const std::map<SocketAddress, Latch>& peers) {
  if (peers.empty()) return;
  Put(text, FMT_COMPILE(",\"broken_peers\":["));
  const char* separator = "";
  for (const auto& [remote, latch] : peers) {
    Put(text, FMT_COMPILE("{}{{\"id\":{}"), std::exchange(separator, ","), latch.id);
    PutTerms(text, latch);
    text.push_back('}');
  }
  text.push_back(']');
}

void PutEntry(Text& text, const Entry& entry) {
  const Latch& latch = entry.latch;
  Put(text, FMT_COMPILE("{{\"id\":{},\"state\":{},\"reason\":{},\"protocol\":{}"), latch.id,
      Number(latch.state), Number(latch.reason), latch.flow.protocol);
  PutTerms(text, latch);
  PutBrokenPeers(text, entry.broken_peers);
  PutNamed(text, "program", latch.program);
  PutNamed(text, "policy", latch.policy);
  Put(text, FMT_COMPILE(",\"pid\":{},\"uid\":{},\"session\":{}"), latch.pid, latch.uid,
      entry.session);
  Put(text, FMT_COMPILE(",\"socket\":[{},{},{},{}]"), entry.hint.cookie, entry.hint.inode,
      entry.hint.pid, entry.hint.fd);
  Put(text,
      FMT_COMPILE(
          ",\"v6\":{},\"static\":{},\"created\":{},\"clear\":{},\"suspends\":{},\"refused\":{},"
          "\"grants\":{},\"guards\":["),
      entry.v6_socket, entry.static_reqid, entry.created, latch.clear, latch.suspends,
      entry.refused, entry.requester.grants.Bits());
  for (size_t i = 0; i < entry.guards.size(); ++i) {
    if (i > 0) text.push_back(',');
    PutGuard(text, entry.guards[i]);
  }
  text.push_back(']');
  if (entry.policy != nullptr && entry.policy->floor != nullptr) {
    PutNamed(text, "wish", entry.policy->request);
    Put(text, FMT_COMPILE(",\"own\":{}"), entry.requester.own.Bits());
  }
  text.push_back('}');
}

void PutSession(Text& text, const SessionRecord& session) {
  Put(text, FMT_COMPILE("{{\"id\":{},\"uid\":{},\"has_policy\":{}"), session.id, session.uid,
      session.has_policy);
  PutNamed(text, "signature", session.signature);
  PutNamed(text, "token", session.token);
  PutNamed(text, "program", session.program);
  PutNamed(text, "name", session.policy_name);
  PutNamed(text, "text", session.policy_text);
  Put(text, FMT_COMPILE(",\"launched\":{},\"unlatched\":{},\"fence\":{}"), session.by_launcher,
      session.unlatched, Number(session.fence));
  PutNamed(text, "not_fenced", session.not_fenced);
  text.push_back('}');
}

// A whole line; `put` writes what it is about.
template <typename PutBody>
std::string Line(std::string_view kind, PutBody put) {
  Text text;
  Put(text, FMT_COMPILE("{{\"kind\":\"{}\",\"what\":"), kind);
  put(text);
  Put(text, FMT_COMPILE("}}\n"));
  return fmt::to_string(text);
}

}  // namespace

std::string JournalLine(const SessionRecord& session) {
  return Line("session", [&](Text& text) { PutSession(text, session); });
}

std::string JournalLine(const Entry& entry) {
  return Line("latch", [&](Text& text) { PutEntry(text, entry); });
}

std::string JournalLine(const Guard& guard) {
  return Line("guard", [&](Text& text) { PutGuard(text, guard); });
}

std::string JournalLine(const Voucher& voucher) {
  return Line("voucher", [&](Text& text) { PutVoucher(text, voucher); });
}

std::string JournalLastIdLine(uint64_t id) {
  return fmt::format(FMT_COMPILE("{{\"kind\":\"last-id\",\"what\":{}}}\n"), id);
}

std::string JournalLine(const WishRecord& wish) {
  return Line("wish", [&](Text& text) {
    Put(text, FMT_COMPILE("{{\"cookie\":{},\"inode\":{},\"session\":{},\"uid\":{}"), wish.cookie,
        wish.inode, wish.session, wish.uid);
    PutNamed(text, "text", wish.text);
    text.push_back('}');
  });
}

std::string JournalEndLine(std::string_view kind, uint64_t id) {
  return fmt::format(FMT_COMPILE("{{\"kind\":\"{}-end\",\"what\":{}}}\n"), kind, id);
}

std::string JournalEndLine(const Guard& guard) {
  return Line("guard-end", [&](Text& text) { PutGuard(text, guard); });
}

std::string JournalEndLine(const SaKey& key) {
  return Line("voucher-end", [&](Text& text) {
    PutKey(text, key);
    text.push_back('}');
  });
}

}  // namespace latchkey::broker
