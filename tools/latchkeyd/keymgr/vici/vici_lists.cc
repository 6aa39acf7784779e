// What charon tells: events, and the answers to lists.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/vici.h"

namespace latchkey::broker {
namespace {

using vici::Packet;
using vici::PacketType;
using vici::Section;

// A log line about an IKE_SA can come after the event that says it is down: charon sends them from
// different threads.
constexpr size_t kMostGone = 64;
// charon says nothing when it deletes an SA that it has replaced: so often they are cleared away.
constexpr size_t kMostReplaced = 64;
// charon forgets an IKE_SA first, and takes its SAs out of the kernel then: until they should be
// gone, nobody else is behind them.
constexpr int64_t kLeavingMs = 15'000;

KeyEvent Returned() {
  KeyEvent event;
  event.kind = KeyEvent::Kind::kReturned;
  return event;
}

}  // namespace

void ViciKeyManager::OnEventPacket(const Packet& packet) {
  switch (packet.type) {
    case PacketType::kEvent:
      return OnEvent(packet);
    case PacketType::kUnknownEvent:
      // An older charon: what we are not told comes with the lists.
      Log("charon does not know one of the events that it is asked for");
      [[fallthrough]];
    case PacketType::kConfirm:
      ++confirmed_;
      return Greeted();
    default:
      Lose("read from VICI: an answer to nothing", EPROTO);
  }
}

void ViciKeyManager::OnCommandsPacket(const Packet& packet) {
  switch (packet.type) {
    case PacketType::kUnknownEvent:
      Log("charon does not know one of the lists that it is asked for");
      [[fallthrough]];
    case PacketType::kConfirm:
      ++confirmed_;
      return Greeted();
    case PacketType::kEvent:
      if (!command_.empty()) return OnListed(packet);
      break;
    case PacketType::kResponse:
      if (!command_.empty()) return OnResponse(packet);
      break;
    default:
      break;
  }
  Lose("read from VICI: an answer to nothing", EPROTO);
}

void ViciKeyManager::OnListed(const Packet& packet) {
  if (packet.name == "list-conn" && command_ == "list-conns") {
    std::optional<vici::ConnConfig> conn = vici::ReadConn(packet.message);
    if (conn) conns_coming_.push_back(std::move(*conn));
  }
  if (packet.name == "list-cert" && command_ == "list-certs") {
    certs_coming_.push_back(packet.message);
  }
}

void ViciKeyManager::OnSasPacket(const Packet& packet) {
  if (packet.type == PacketType::kConfirm) {
    ++confirmed_;
    return Greeted();
  }
  if (listing_ && packet.type == PacketType::kEvent) {
    const std::optional<vici::UpDown> read = vici::ReadUpDown(packet.message);
    if (read) mirror_.Listed(read->ike);
  } else if (listing_ && packet.type == PacketType::kResponse) {
    listing_ = false;
    OnSasListed();
    AskSas();
  } else {
    Lose("read from VICI: an answer to nothing", EPROTO);
  }
}

void ViciKeyManager::OnEvent(const Packet& packet) {
  const vici::Section& message = packet.message;
  if (packet.name == "log") return OnLog(vici::ReadLogLine(message));
  if (!TakeSaEvent(packet.name, message)) WantSas();  // a change that we do not understand
  if (mirror_.unsettled()) WantConns();
}

bool ViciKeyManager::TakeSaEvent(const std::string& name, const vici::Section& message) {
  if (name == "ike-updown") {
    const std::optional<vici::UpDown> read = vici::ReadUpDown(message);
    if (read) OnIkeUpDown(*read);
    return read.has_value();
  }
  if (name == "child-updown") {
    const std::optional<vici::UpDown> read = vici::ReadUpDown(message);
    if (read) OnChildUpDown(*read);
    return read.has_value();
  }
  if (name == "child-rekey") {
    const std::optional<vici::ChildRekey> read = vici::ReadChildRekey(message);
    if (!read) return false;
    mirror_.Rekeyed(*read);
    if (++replaced_ >= kMostReplaced) WantSas();
  } else if (name == "ike-rekey") {
    const std::optional<vici::IkeRekey> read = vici::ReadIkeRekey(message);
    if (!read) return false;
    mirror_.Rekeyed(*read);
    WantSas();
  } else if (name == "ike-update") {
    const std::optional<vici::IkeUpdate> read = vici::ReadIkeUpdate(message);
    if (!read) return false;
    mirror_.Moved(*read);
    WantSas();
  } else {
    return true;  // one that we never asked for
  }
  Changed();
  return true;
}

void ViciKeyManager::OnLog(const vici::LogLine& line) {
  if (line.ike_id == 0 || !vici::SaysPeerDead(line)) return;
  const auto gone = std::ranges::find(gone_, line.ike_id, &Gone::ike);
  if (gone != gone_.end()) {
    PeerDead(gone->peer, gone->remote);
    gone_.erase(gone);
  } else if (mirror_.PeerOf(line.ike_id)) {
    dying_.insert(line.ike_id);
  }
}

void ViciKeyManager::OnIkeUpDown(const vici::UpDown& event) {
  if (event.up) {
    mirror_.Heard(event.ike);
    return Changed();
  }
  if (const std::optional<Identity> peer = mirror_.PeerOf(event.ike.id)) {
    const Address remote = event.ike.remote.address;
    if (dying_.erase(event.ike.id) != 0) {
      PeerDead(*peer, remote);
    } else {
      gone_.push_back({event.ike.id, *peer, remote});
      if (gone_.size() > kMostGone) gone_.pop_front();
    }
  }
  WantSas();
}

void ViciKeyManager::OnChildUpDown(const vici::UpDown& event) {
  if (!event.up) return WantSas();
  mirror_.Heard(event.ike);
  for (const vici::ChildSa& child : event.ike.children) {
    negotiations_.OnChildUp({event.ike.name, child.name}, event.ike.id);
  }
  Changed();
}

void ViciKeyManager::PeerDead(const Identity& peer, const Address& remote) {
  KeyEvent event;
  event.kind = KeyEvent::Kind::kPeerDead;
  event.reason = Reason::kPeerDead;
  event.detail = peer.peer_id + " at " + remote.ToString() + " does not answer";
  event.peer = peer;
  event.remote = remote;
  happened_.push_back(std::move(event));
}

void ViciKeyManager::WantSas() {
  sas_wanted_ = true;
  AskSas();
}

void ViciKeyManager::WantConns() {
  conns_wanted_ = true;
  AskConns();
}

void ViciKeyManager::AskSas() {
  if (link_ != Link::kUp || !conns_at_ || listing_ || !sas_wanted_) return;
  listing_ = true;
  sas_wanted_ = false;
  being_asked_ = std::exchange(asked_, {});
  replaced_ = 0;
  mirror_.BeginList();
  negotiations_.OnListAsked();
  // Without `noblock`: charon answers when it has done what it is doing.
  if (Result<void> sent = sas_.Send({PacketType::kRequest, "list-sas", {}}); !sent) {
    return Lose(sent.error().step + ": " + sent.error().value, EPIPE);
  }
  if (sas_.wants_write()) Watch(sas_.fd(), kSasTag, true);
}

void ViciKeyManager::AskConns() {
  if (link_ != Link::kUp || !command_.empty()) return;
  Section message;
  if (!commands_.empty()) {
    asking_ = std::move(commands_.front());
    commands_.pop_front();
    command_ = asking_.name;
    message = asking_.message;
  } else if (conns_wanted_) {
    command_ = "list-conns";
    conns_wanted_ = false;
    conns_coming_.clear();
    conns_asked_at_ = Now();
  } else if (version_wanted_) {
    command_ = "version";
    version_wanted_ = false;
  } else {
    return;
  }
  if (Result<void> sent = commands_link_.Send({PacketType::kRequest, command_, std::move(message)});
      !sent) {
    return Lose(sent.error().step + ": " + sent.error().value, EPIPE);
  }
  if (commands_link_.wants_write()) Watch(commands_link_.fd(), kCommandsTag, true);
}

void ViciKeyManager::OnResponse(const Packet& packet) {
  const std::string command = std::exchange(command_, {});
  if (command == "list-conns") {
    OnConnsListed();
    AskSas();
  } else if (command == "list-certs") {
    OnCerts(std::exchange(asking_, {}));
  } else if (command != "version") {
    OnCommand(std::exchange(asking_, {}), packet.message);
  } else {
    version_ = std::string(packet.message.Value("daemon").value_or("")) + " " +
               std::string(packet.message.Value("version").value_or(""));
  }
  AskConns();
}

void ViciKeyManager::OnSasListed() {
  const bool changed = mirror_.EndList();
  const bool first = !std::exchange(first_list_over_, true);
  const bool asked = !being_asked_.empty();
  for (const Question& question : std::exchange(being_asked_, {})) {
    const auto& [key, source, reqid] = question;
    Sa sa;
    sa.key = key;
    sa.source = source;
    sa.reqid = reqid;
    if (mirror_.Look(sa, true) || mirror_.Look(sa, false)) continue;
    if (mirror_.Departed(sa)) {
      leaving_.emplace(question, Now() + kLeavingMs);
    } else {
      denied_.insert(question);
    }
  }
  if (first) InheritOwn();
  std::erase_if(dying_, [this](uint32_t ike) { return !mirror_.PeerOf(ike); });
  negotiations_.OnListed();
  if (mirror_.unsettled()) WantConns();
  if (changed || first || asked) Changed();
  if (first) happened_.push_back(Returned());
  TryDeferred();
}

void ViciKeyManager::OnConnsListed() {
  conns_at_ = conns_asked_at_;
  if (mirror_.SetConns(std::exchange(conns_coming_, {}))) Changed();
  TryDeferred();
}

void ViciKeyManager::TryDeferred() {
  if (!first_list_over_ || !conns_at_) return;
  for (auto it = deferred_.begin(); it != deferred_.end();) {
    const uint64_t ticket = it->first;
    const Result<uint64_t> begun = Begin(it->second, ticket, /*named=*/true);
    if (!begun && conns_wanted_) {
      ++it;  // an answer that was asked for later is still to come
      continue;
    }
    it = deferred_.erase(it);
    if (!begun) Acquired(ticket, begun.error());
  }
}

void ViciKeyManager::Changed() {
  const bool told = std::ranges::any_of(
      happened_, [](const KeyEvent& event) { return event.kind == KeyEvent::Kind::kChanged; });
  if (!told) happened_.emplace_back();
}

void ViciKeyManager::Acquired(uint64_t ticket, const Error& why) {
  KeyEvent event;
  event.kind = KeyEvent::Kind::kAcquired;
  event.ticket = ticket;
  event.reason = why.reason;
  event.detail = why.value;
  happened_.push_back(std::move(event));
}

}  // namespace latchkey::broker
