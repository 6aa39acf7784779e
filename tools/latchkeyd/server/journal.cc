#include "tools/latchkeyd/server/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace latchkey::broker {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kCompactAt = 4 << 20;

Json ToJson(const SocketAddress& address) {
  if (address.address.family == Family::kNone) return nullptr;
  return {address.address.ToString(), address.port};
}

SocketAddress AddressFrom(const Json& json) {
  if (json.is_null()) return {};
  return {Address::Parse(json.at(0).get<std::string>()).value(), json.at(1).get<uint16_t>()};
}

Json ToJson(const Prefix& prefix) {
  if (prefix.base.family == Family::kNone) return nullptr;
  return prefix.ToString();
}

Prefix PrefixFrom(const Json& json) {
  return json.is_null() ? Prefix{} : Prefix::Parse(json.get<std::string>()).value();
}

Json ToJson(const Guard& guard) {
  const Selector& s = guard.selector;
  return {{"out", guard.out},
          {"action", static_cast<int>(guard.action)},
          {"reqid", guard.reqid},
          {"priority", guard.priority},
          {"mark", guard.mark},
          {"family", static_cast<int>(s.family)},
          {"source", ToJson(s.source)},
          {"destination", ToJson(s.destination)},
          {"protocol", s.protocol},
          {"ports", {s.source_port, s.source_mask, s.destination_port, s.destination_mask}}};
}

Guard GuardFrom(const Json& json) {
  Guard guard;
  guard.out = json.at("out").get<bool>();
  guard.action = static_cast<Guard::Action>(json.at("action").get<int>());
  guard.reqid = json.at("reqid").get<uint32_t>();
  guard.priority = json.at("priority").get<uint32_t>();
  guard.mark = json.at("mark").get<uint32_t>();
  Selector& s = guard.selector;
  s.family = static_cast<Family>(json.at("family").get<int>());
  s.source = PrefixFrom(json.at("source"));
  s.destination = PrefixFrom(json.at("destination"));
  s.protocol = json.at("protocol").get<uint8_t>();
  s.source_port = json.at("ports").at(0).get<uint16_t>();
  s.source_mask = json.at("ports").at(1).get<uint16_t>();
  s.destination_port = json.at("ports").at(2).get<uint16_t>();
  s.destination_mask = json.at("ports").at(3).get<uint16_t>();
  return guard;
}

Json ToJson(const Entry& entry) {
  const Latch& latch = entry.latch;
  const Protection& p = latch.protection;
  Json guards = Json::array();
  for (const Guard& guard : entry.guards) guards.push_back(ToJson(guard));
  return {{"id", latch.id},
          {"state", static_cast<int>(latch.state)},
          {"reason", static_cast<int>(latch.reason)},
          {"direction", static_cast<int>(latch.flow.direction)},
          {"protocol", latch.flow.protocol},
          {"local", ToJson(latch.flow.local)},
          {"remote", ToJson(latch.flow.remote)},
          {"identity", {latch.identity.peer_id, latch.identity.local_id, latch.identity.auth}},
          {"protection",
           {static_cast<int>(p.protocol), static_cast<int>(p.mode), p.encryption, p.integrity,
            p.key_bits, p.replay, p.esn}},
          {"pin", static_cast<int>(latch.pin)},
          {"reqid", latch.reqid},
          {"spi", {latch.spi_in, latch.spi_out}},
          {"program", latch.program},
          {"pid", latch.pid},
          {"uid", latch.uid},
          {"policy", latch.policy},
          {"rule", latch.rule},
          {"since", latch.since},
          {"session", entry.session},
          {"socket", {entry.hint.cookie, entry.hint.inode, entry.hint.pid, entry.hint.fd}},
          {"v6", entry.v6_socket},
          {"static", entry.static_reqid},
          {"created", entry.created},
          {"root", entry.requester.root},
          {"guards", guards}};
}

Entry EntryFrom(const Json& json) {
  Entry entry;
  Latch& latch = entry.latch;
  latch.id = json.at("id").get<uint64_t>();
  latch.state = static_cast<State>(json.at("state").get<int>());
  latch.reason = static_cast<Reason>(json.at("reason").get<int>());
  latch.flow.direction = static_cast<Direction>(json.at("direction").get<int>());
  latch.flow.protocol = json.at("protocol").get<uint8_t>();
  latch.flow.local = AddressFrom(json.at("local"));
  latch.flow.remote = AddressFrom(json.at("remote"));
  const Json& identity = json.at("identity");
  latch.identity = Identity{identity.at(0), identity.at(1), identity.at(2)};
  const Json& p = json.at("protection");
  latch.protection = Protection{static_cast<SaProtocol>(p.at(0).get<int>()),
                                static_cast<Mode>(p.at(1).get<int>()),
                                p.at(2),
                                p.at(3),
                                p.at(4).get<uint16_t>(),
                                p.at(5).get<bool>(),
                                p.at(6).get<bool>()};
  latch.pin = static_cast<Pin>(json.at("pin").get<int>());
  latch.reqid = json.at("reqid").get<uint32_t>();
  latch.spi_in = json.at("spi").at(0).get<uint32_t>();
  latch.spi_out = json.at("spi").at(1).get<uint32_t>();
  latch.program = json.at("program");
  latch.pid = json.at("pid").get<uint32_t>();
  latch.uid = json.at("uid").get<uint32_t>();
  latch.policy = json.at("policy");
  latch.rule = json.at("rule");
  latch.since = json.at("since").get<uint64_t>();
  entry.session = json.at("session").get<uint64_t>();
  const Json& socket = json.at("socket");
  entry.hint = SocketHint{socket.at(0).get<uint64_t>(), socket.at(1).get<uint64_t>(),
                          socket.at(2).get<int32_t>(), socket.at(3).get<int32_t>()};
  entry.v6_socket = json.at("v6").get<bool>();
  entry.static_reqid = json.at("static").get<bool>();
  entry.created = json.at("created").get<int64_t>();
  entry.requester = policy::Requester{latch.uid, json.at("root").get<bool>()};
  for (const Json& guard : json.at("guards")) entry.guards.push_back(GuardFrom(guard));
  return entry;
}

Json ToJson(const SessionRecord& session) {
  return {{"id", session.id},
          {"token", session.token},
          {"uid", session.uid},
          {"program", session.program},
          {"name", session.policy_name},
          {"text", session.policy_text},
          {"has_policy", session.has_policy}};
}

SessionRecord SessionFrom(const Json& json) {
  SessionRecord session;
  session.id = json.at("id").get<uint64_t>();
  session.token = json.at("token");
  session.uid = json.at("uid").get<uint32_t>();
  session.program = json.at("program");
  session.policy_name = json.at("name");
  session.policy_text = json.at("text");
  session.has_policy = json.at("has_policy").get<bool>();
  return session;
}

void Apply(const Json& line, JournalState& state) {
  const std::string kind = line.at("kind");
  const Json& what = line.at("what");
  if (kind == "session") {
    SessionRecord session = SessionFrom(what);
    state.sessions[session.id] = std::move(session);
  } else if (kind == "session-end") {
    state.sessions.erase(what.get<uint64_t>());
  } else if (kind == "latch") {
    Entry entry = EntryFrom(what);
    const uint64_t id = entry.latch.id;
    state.latches[id] = std::move(entry);
  } else if (kind == "latch-end") {
    state.latches.erase(what.get<uint64_t>());
  } else if (kind == "guard") {
    state.guards.insert(GuardFrom(what));
  } else if (kind == "guard-end") {
    state.guards.erase(GuardFrom(what));
  } else {
    throw std::out_of_range("kind");
  }
}

std::string Line(const char* kind, const Json& what) {
  // Names come from users: what is no UTF-8 is replaced, never thrown about.
  return Json{{"kind", kind}, {"what", what}}.dump(-1, ' ', false, Json::error_handler_t::replace) +
         "\n";
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
  // A torn line would run into the next one.
  if (!text.empty() && text.back() != '\n') journal.Write("\n");
  return journal;
}

void Journal::Write(const std::string& line) {
  const ssize_t count = write(file_.get(), line.data(), line.size());
  if (count > 0) size_ += static_cast<uint64_t>(count);
}

void Journal::Add(const SessionRecord& session) { Write(Line("session", ToJson(session))); }
void Journal::EndSession(uint64_t id) { Write(Line("session-end", id)); }
void Journal::Add(const Entry& entry) { Write(Line("latch", ToJson(entry))); }
void Journal::EndLatch(uint64_t id) { Write(Line("latch-end", id)); }
void Journal::Add(const Guard& guard) { Write(Line("guard", ToJson(guard))); }
void Journal::EndGuard(const Guard& guard) { Write(Line("guard-end", ToJson(guard))); }

void Journal::Compact(const JournalState& state, bool force) {
  if (size_ < kCompactAt && !force) return;
  std::string text;
  for (const auto& [id, session] : state.sessions) text += Line("session", ToJson(session));
  for (const auto& [id, entry] : state.latches) text += Line("latch", ToJson(entry));
  for (const Guard& guard : state.guards) text += Line("guard", ToJson(guard));
  const std::string fresh = path_ + ".new";
  UniqueFd file(
      open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return;
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      rename(fresh.c_str(), path_.c_str()) != 0) {
    unlink(fresh.c_str());
    return;
  }
  file_ = std::move(file);
  size_ = text.size();
}

}  // namespace latchkey::broker
