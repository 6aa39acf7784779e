#include "tools/latchkeyd/server/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

namespace latchkey::broker {
namespace {

using Json = nlohmann::json;

// Undoes what PutString() of journal_line.cc does.
std::string StringFrom(const Json& json) {
  const auto& text = json.get_ref<const std::string&>();
  std::string octets;
  for (size_t i = 0; i < text.size(); ++i) {
    auto octet = static_cast<unsigned char>(text[i]);
    if (octet >= 0x80) {
      if (octet > 0xc3) throw std::out_of_range("character");
      octet = static_cast<unsigned char>(octet << 6 | (text.at(++i) & 0x3f));
    }
    octets += static_cast<char>(octet);
  }
  return octets;
}

// Reads a whole number that a T can hold: the library would turn any number into one.
template <typename T>
T NumberFrom(const Json& json) {
  if (json.is_number_unsigned()) {
    const auto number = json.get<uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (json.is_number_integer()) {
    const auto number = json.get<int64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  }
  throw std::out_of_range("number");
}

// Reads an enumerator that is at most `last`.
template <typename Enum>
Enum EnumFrom(const Json& json, Enum last) {
  const auto number = NumberFrom<uint64_t>(json);
  if (number > static_cast<uint64_t>(last)) throw std::out_of_range("enumerator");
  return static_cast<Enum>(number);
}

SocketAddress AddressFrom(const Json& json) {
  if (json.is_null()) return {};
  return {Address::Parse(json.at(0).get<std::string>()).value(), NumberFrom<uint16_t>(json.at(1))};
}

Prefix PrefixFrom(const Json& json) {
  return json.is_null() ? Prefix{} : Prefix::Parse(json.get<std::string>()).value();
}

Selector SelectorFrom(const Json& json) {
  Selector s;
  s.family = EnumFrom(json.at("family"), Family::kV6);
  s.source = PrefixFrom(json.at("source"));
  s.destination = PrefixFrom(json.at("destination"));
  s.protocol = NumberFrom<uint8_t>(json.at("protocol"));
  s.source_port = NumberFrom<uint16_t>(json.at("ports").at(0));
  s.source_mask = NumberFrom<uint16_t>(json.at("ports").at(1));
  s.destination_port = NumberFrom<uint16_t>(json.at("ports").at(2));
  s.destination_mask = NumberFrom<uint16_t>(json.at("ports").at(3));
  return s;
}

Identity IdentityFrom(const Json& json) {
  return Identity{StringFrom(json.at(0)), StringFrom(json.at(1)), StringFrom(json.at(2))};
}

Protection ProtectionFrom(const Json& p) {
  return Protection{EnumFrom(p.at(0), SaProtocol::kAh),
                    EnumFrom(p.at(1), Mode::kUnknown),
                    StringFrom(p.at(2)),
                    StringFrom(p.at(3)),
                    NumberFrom<uint16_t>(p.at(4)),
                    p.at(5).get<bool>(),
                    p.at(6).get<bool>()};
}

SaKey KeyFrom(const Json& json) {
  return SaKey{AddressFrom(json.at("to")).address, NumberFrom<uint32_t>(json.at("spi")),
               EnumFrom(json.at("sa_protocol"), SaProtocol::kAh)};
}

Voucher VoucherFrom(const Json& json) {
  Voucher voucher;
  Sa& sa = voucher.sa;
  sa.key = KeyFrom(json);
  sa.source = AddressFrom(json.at("from")).address;
  sa.reqid = NumberFrom<uint32_t>(json.at("reqid"));
  sa.mark = NumberFrom<uint32_t>(json.at("mark").at(0));
  sa.mark_mask = NumberFrom<uint32_t>(json.at("mark").at(1));
  sa.if_id = NumberFrom<uint32_t>(json.at("if_id"));
  sa.offload = EnumFrom(json.at("offload"), Offload::kPacket);
  sa.added = NumberFrom<uint64_t>(json.at("added"));
  if (json.contains("set_mark")) {  // left out where there is none
    sa.set_mark = NumberFrom<uint32_t>(json.at("set_mark").at(0));
    sa.set_mask = NumberFrom<uint32_t>(json.at("set_mark").at(1));
  }
  sa.selector = SelectorFrom(json);
  sa.protection = ProtectionFrom(json.at("protection"));
  voucher.identity = IdentityFrom(json.at("identity"));
  for (const Json& each : json.at("traffic")) voucher.traffic.push_back(SelectorFrom(each));
  return voucher;
}

Guard GuardFrom(const Json& json) {
  Guard guard;
  guard.out = json.at("out").get<bool>();
  guard.action = EnumFrom(json.at("action"), Guard::Action::kAh);
  guard.reqid = NumberFrom<uint32_t>(json.at("reqid"));
  guard.priority = NumberFrom<uint32_t>(json.at("priority"));
  guard.mark = NumberFrom<uint32_t>(json.at("mark"));
  if (json.contains("unset")) guard.unset = NumberFrom<uint32_t>(json.at("unset"));
  if (json.contains("mode")) {
    guard.mode = EnumFrom(json.at("mode"), Mode::kUnknown);
    guard.ends = {AddressFrom(json.at("outer_local")).address,
                  AddressFrom(json.at("outer_remote")).address};
  }
  guard.selector = SelectorFrom(json);
  return guard;
}

// Between whom a latch is, and by what.
void TermsFrom(const Json& json, Latch& latch) {
  latch.flow.direction = EnumFrom(json.at("direction"), Direction::kBoth);
  latch.flow.local = AddressFrom(json.at("local"));
  latch.flow.remote = AddressFrom(json.at("remote"));
  // Journals of brokers before had no word for these.
  if (json.contains("nat")) {
    latch.peering = {AddressFrom(json.at("outer_local")), AddressFrom(json.at("outer_remote")),
                     json.at("nat").at(0).get<bool>(), json.at("nat").at(1).get<bool>()};
  }
  latch.identity = IdentityFrom(json.at("identity"));
  latch.protection = ProtectionFrom(json.at("protection"));
  latch.pin = EnumFrom(json.at("pin"), Pin::kSpi);
  latch.reqid = NumberFrom<uint32_t>(json.at("reqid"));
  latch.spi_in = NumberFrom<uint32_t>(json.at("spi").at(0));
  latch.spi_out = NumberFrom<uint32_t>(json.at("spi").at(1));
  latch.rule = StringFrom(json.at("rule"));
  latch.implicit = json.at("implicit").get<bool>();
  latch.since = NumberFrom<uint64_t>(json.at("since"));
}

Entry EntryFrom(const Json& json) {
  Entry entry;
  Latch& latch = entry.latch;
  latch.id = NumberFrom<uint64_t>(json.at("id"));
  latch.state = EnumFrom(json.at("state"), State::kBroken);
  latch.reason = EnumFrom(json.at("reason"), static_cast<Reason>(wire::kReasonCount - 1));
  latch.flow.protocol = NumberFrom<uint8_t>(json.at("protocol"));
  TermsFrom(json, latch);
  latch.program = StringFrom(json.at("program"));
  latch.pid = NumberFrom<uint32_t>(json.at("pid"));
  latch.uid = NumberFrom<uint32_t>(json.at("uid"));
  latch.policy = StringFrom(json.at("policy"));
  entry.session = NumberFrom<uint64_t>(json.at("session"));
  const Json& socket = json.at("socket");
  entry.hint = SocketHint{NumberFrom<uint64_t>(socket.at(0)), NumberFrom<uint64_t>(socket.at(1)),
                          NumberFrom<int32_t>(socket.at(2)), NumberFrom<int32_t>(socket.at(3))};
  entry.v6_socket = json.at("v6").get<bool>();
  entry.static_reqid = json.at("static").get<bool>();
  entry.created = NumberFrom<int64_t>(json.at("created"));
  latch.clear = json.at("clear").get<bool>();
  latch.suspends = json.at("suspends").get<bool>();
  if (json.contains("refused")) entry.refused = json.at("refused").get<bool>();
  entry.requester =
      policy::Requester{latch.uid, policy::Grants::Of(NumberFrom<uint8_t>(json.at("grants")))};
  if (json.contains("own")) {
    entry.requester.own = policy::Grants::Of(NumberFrom<uint8_t>(json.at("own")));
  }
  for (const Json& guard : json.at("guards")) entry.guards.push_back(GuardFrom(guard));
  if (json.contains("broken_peers")) {  // left out where there are none
    for (const Json& peer : json.at("broken_peers")) {
      Latch broken;
      broken.id = NumberFrom<uint64_t>(peer.at("id"));
      broken.flow.protocol = latch.flow.protocol;
      TermsFrom(peer, broken);
      entry.broken_peers[broken.flow.remote] = std::move(broken);
    }
  }
  return entry;
}

SessionRecord SessionFrom(const Json& json) {
  SessionRecord session;
  session.id = NumberFrom<uint64_t>(json.at("id"));
  session.token = StringFrom(json.at("token"));
  session.uid = NumberFrom<uint32_t>(json.at("uid"));
  session.program = StringFrom(json.at("program"));
  session.policy_name = StringFrom(json.at("name"));
  session.policy_text = StringFrom(json.at("text"));
  session.signature = StringFrom(json.at("signature"));
  session.has_policy = json.at("has_policy").get<bool>();
  if (!json.contains("fence")) {  // nor who launched it is known
    session.fence = wire::FenceState::kLacking;
    session.not_fenced = "the broker that began it had no fences";
    return session;
  }
  session.by_launcher = json.at("launched").get<bool>();
  session.unlatched = json.at("unlatched").get<bool>();
  const auto fence = NumberFrom<uint8_t>(json.at("fence"));
  if (fence > static_cast<uint8_t>(wire::FenceState::kOver)) throw std::out_of_range("fence");
  session.fence = static_cast<wire::FenceState>(fence);
  session.not_fenced = StringFrom(json.at("not_fenced"));
  return session;
}

WishRecord WishFrom(const Json& json) {
  return {NumberFrom<uint64_t>(json.at("cookie")), NumberFrom<uint64_t>(json.at("inode")),
          NumberFrom<uint64_t>(json.at("session")), NumberFrom<uint32_t>(json.at("uid")),
          StringFrom(json.at("text"))};
}

void Apply(const Json& line, JournalState& state) {
  const std::string kind = line.at("kind");
  const Json& what = line.at("what");
  if (kind == "session") {
    SessionRecord session = SessionFrom(what);
    state.sessions[session.id] = std::move(session);
  } else if (kind == "session-end") {
    state.sessions.erase(NumberFrom<uint64_t>(what));
  } else if (kind == "latch") {
    Entry entry = EntryFrom(what);
    const uint64_t id = entry.latch.id;
    state.last_id = std::max(state.last_id, id);
    for (const auto& [remote, peer] : entry.broken_peers) {
      state.last_id = std::max(state.last_id, peer.id);
    }
    state.suspects.erase(id);
    if (what.contains("wish")) state.held[id] = StringFrom(what.at("wish"));
    state.latches[id] = std::move(entry);
  } else if (kind == "latch-end") {
    const auto id = NumberFrom<uint64_t>(what);
    state.suspects.erase(id);
    state.latches.erase(id);
    state.held.erase(id);
  } else if (kind == "last-id") {
    state.last_id = std::max(state.last_id, NumberFrom<uint64_t>(what));
  } else if (kind == "voucher") {
    Voucher voucher = VoucherFrom(what);
    const SaKey key = voucher.sa.key;
    state.vouchers[key] = std::move(voucher);
  } else if (kind == "voucher-end") {
    state.vouchers.erase(KeyFrom(what));
  } else if (kind == "wish") {
    WishRecord wish = WishFrom(what);
    state.wishes[wish.cookie] = std::move(wish);
  } else if (kind == "wish-end") {
    state.wishes.erase(NumberFrom<uint64_t>(what));
  } else if (kind == "guard") {
    state.guards.insert(GuardFrom(what));
  } else if (kind == "guard-end") {
    state.guards.erase(GuardFrom(what));
  } else {
    throw std::out_of_range("kind");
  }
}

// What a garbled line says is lost. That somebody vouches may have been taken back in it, so nobody
// does. The latch that it was about may have been broken in it; where it cannot be seen which that
// was, or that it was about none, any that only suspends may, and any peer of an unconnected UDP
// socket: the sockets of others are cut off for good when they break.
void Suspect(std::string_view line, JournalState& state) {
  state.vouchers.clear();
  constexpr std::string_view kBegin = "{\"kind\":\"latch\",\"what\":{\"id\":";
  if (line.starts_with(kBegin)) {
    line.remove_prefix(kBegin.size());
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), id);
    if (error == std::errc() && end != line.data() + line.size() && *end == ',') {
      state.last_id = std::max(state.last_id, id);
      state.suspects.insert(id);
      return;
    }
  }
  for (const std::string_view kind : {"session", "guard", "voucher", "last-id", "wish"}) {
    if (line.starts_with(std::string("{\"kind\":\"").append(kind))) return;
  }
  for (const auto& [id, entry] : state.latches) {
    const bool held =
        entry.latch.state == State::kListener && entry.latch.flow.protocol == kProtocolUdp;
    if (entry.latch.suspends || held) state.suspects.insert(id);
  }
}

}  // namespace

JournalState ReadJournal(std::string_view text) {
  JournalState state;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // torn: not answered, so it never was
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.empty()) continue;
    // The library, and value() on an address that is none, throw on what does not fit.
    try {
      Apply(Json::parse(line), state);
    } catch (const std::exception&) {
      ++state.garbled;
      Suspect(line, state);
    }
  }
  return state;
}

Result<Journal> Journal::Open(const std::string& path, JournalState& state) {
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return Fail(Reason::kKernelRefused, "open journal", path + ": " + strerror(errno));
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t count = read(file.get(), buffer, sizeof(buffer));
    if (count < 0) return Fail(Reason::kKernelRefused, "read journal", strerror(errno));
    if (count == 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  state = ReadJournal(text);
  Journal journal(path, std::move(file), text.size());
  journal.DropTorn(text.rfind('\n') + 1);
  return journal;
}

void Journal::DropTorn(uint64_t size) {
  // A line without its end would run into the next one.
  if (ftruncate(file_.get(), static_cast<off_t>(size)) == 0) size_ = size;
}

void Journal::Write(const std::string& line) {
  const ssize_t count = write(file_.get(), line.data(), line.size());
  if (count == static_cast<ssize_t>(line.size())) {
    size_ += line.size();
    return;
  }
  failed_ = true;
  if (count > 0) DropTorn(size_);
}

void Journal::Add(const SessionRecord& session) { Write(JournalLine(session)); }
void Journal::EndSession(uint64_t id) { Write(JournalEndLine("session", id)); }
void Journal::Add(const Entry& entry) { Write(JournalLine(entry)); }
void Journal::EndLatch(uint64_t id) { Write(JournalEndLine("latch", id)); }
void Journal::NoteId(uint64_t id) { Write(JournalLastIdLine(id)); }
void Journal::Add(const Guard& guard) { Write(JournalLine(guard)); }
void Journal::EndGuard(const Guard& guard) { Write(JournalEndLine(guard)); }
void Journal::Add(const Voucher& voucher) { Write(JournalLine(voucher)); }
void Journal::EndVoucher(const SaKey& key) { Write(JournalEndLine(key)); }

void Journal::Add(const WishRecord& wish) { Write(JournalLine(wish)); }
void Journal::EndWish(uint64_t cookie) { Write(JournalEndLine("wish", cookie)); }

bool Journal::Compact(const JournalState& state) {
  std::string text;
  for (const auto& [id, session] : state.sessions) text += JournalLine(session);
  for (const auto& [id, entry] : state.latches) text += JournalLine(entry);
  for (const Guard& guard : state.guards) text += JournalLine(guard);
  for (const auto& [key, voucher] : state.vouchers) text += JournalLine(voucher);
  if (state.last_id != 0) text += JournalLastIdLine(state.last_id);
  for (const auto& [cookie, wish] : state.wishes) text += JournalLine(wish);
  compacted_ = text.size();
  const std::string fresh = path_ + ".new";
  UniqueFd file(
      open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return false;
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      rename(fresh.c_str(), path_.c_str()) != 0) {
    unlink(fresh.c_str());
    return false;
  }
  file_ = std::move(file);
  size_ = text.size();
  return true;
}

}  // namespace latchkey::broker
