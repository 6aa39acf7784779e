#include "tools/latchkey/latch_json.h"

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace latchkey::tool {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json OrNull(uint64_t number) { return number == 0 ? Json(nullptr) : Json(number); }

Json EndpointJson(const SocketAddress& endpoint) {
  if (endpoint.address.family == Family::kNone) return nullptr;
  return Json{{"address", endpoint.address.ToString()}, {"port", endpoint.port}};
}

Json ProtectionJson(const Latch& latch) {
  const Protection& protection = latch.protection;
  if (protection.protocol == SaProtocol::kNone) return nullptr;
  return Json{{"protocol", OrNull(SaProtocolWord(protection.protocol))},
              {"mode", OrNull(ModeWord(protection.mode))},
              {"encryption", OrNull(protection.encryption)},
              {"integrity", OrNull(protection.integrity)},
              {"key_bits", OrNull(uint64_t{protection.key_bits})},
              {"replay", protection.replay},
              {"esn", protection.esn},
              {"qop", kQop}};
}

Json OuterJson(const Peering& peering) {
  const Json local = EndpointJson(peering.local);
  const Json remote = EndpointJson(peering.remote);
  if (local.is_null() && remote.is_null()) return nullptr;
  return Json{{"local", local}, {"remote", remote}};
}

Json NatJson(const Peering& peering) {
  if (!NatKnown(peering)) return nullptr;
  return Json{{"local", peering.nat_local}, {"remote", peering.nat_remote}};
}

Json RemoteJson(const Latch& latch) {
  Json remote = EndpointJson(latch.flow.remote);
  if (AnyPort(latch)) remote["port"] = nullptr;
  return remote;
}

Json LatchJson(const Latch& latch) {
  const bool listener = latch.state == State::kListener;
  const bool pinned = latch.protection.protocol != SaProtocol::kNone;
  return Json{
      {"id", latch.id},
      {"state", StateName(latch.state)},
      {"protocol", OrNull(ProtocolWord(latch.flow.protocol))},
      {"local", EndpointJson(latch.flow.local)},
      {"remote", listener ? Json(nullptr) : RemoteJson(latch)},
      {"peer_id", OrNull(latch.identity.peer_id)},
      {"local_id", OrNull(latch.identity.local_id)},
      {"auth", OrNull(latch.identity.auth)},
      {"protection", ProtectionJson(latch)},
      {"reqid", OrNull(uint64_t{latch.reqid})},
      {"spi_in", OrNull(latch.spi_in == 0 ? "" : SpiText(latch.spi_in))},
      {"spi_out", OrNull(latch.spi_out == 0 ? "" : SpiText(latch.spi_out))},
      {"pin", pinned ? OrNull(PinWord(latch.pin)) : Json(nullptr)},
      {"program", OrNull(latch.program)},
      {"pid", OrNull(uint64_t{latch.pid})},
      {"uid", latch.uid},
      {"policy", OrNull(latch.policy)},
      {"rule", OrNull(latch.rule)},
      {"since", latch.since == 0 ? Json(nullptr) : Json(Rfc3339(latch.since))},
      {"reason",
       latch.reason == wire::Reason::kNone ? Json(nullptr) : Json(wire::ReasonWord(latch.reason))},
      {"disposition", DispositionWord(latch)},
      {"implicit", latch.implicit},
      {"clear", latch.clear},
      {"offload", OrNull(OffloadWord(latch))},
      {"outer", OuterJson(latch.peering)},
      {"nat", NatJson(latch.peering)},
      {"listener", OrNull(latch.listener)},
      {"dropped", CountsDropped(latch) ? Json(latch.dropped) : Json(nullptr)},
  };
}

const char* FenceWord(wire::FenceState state) {
  switch (state) {
    case wire::FenceState::kUnasked:
      return "unasked";
    case wire::FenceState::kStands:
      return "stands";
    case wire::FenceState::kLacking:
      return "lacking";
    case wire::FenceState::kOver:
      break;
  }
  return "over";
}

Json SessionJson(const wire::FenceRecord& session) {
  return Json{{"id", session.id},
              {"program", OrNull(std::string(session.program))},
              {"uid", session.uid},
              {"policy", OrNull(std::string(session.policy))},
              {"launched", session.launched != 0},
              {"latched", session.unlatched == 0},
              {"fence", FenceWord(session.state)},
              {"not_fenced", OrNull(std::string(session.why))}};
}

std::string Dump(const Json& document) {
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string ListJson(const std::vector<Latch>& latches,
                     const std::vector<wire::FenceRecord>& sessions) {
  Json list = Json::array();
  for (const Latch& latch : latches) list.push_back(LatchJson(latch));
  Json programs = Json::array();
  for (const wire::FenceRecord& session : sessions) {
    if (session.id != 0) programs.push_back(SessionJson(session));
  }
  return Dump(Json{{"schema", 1}, {"latches", std::move(list)}, {"sessions", std::move(programs)}});
}

std::string ShowJson(const Latch& latch) {
  return Dump(Json{{"schema", 1}, {"latch", LatchJson(latch)}});
}

std::string EventJson(const Event& event, const std::string& broker) {
  const Latch& latch = event.latch;
  const bool state = event.what == Event::What::kState;
  const wire::Reason reason = state ? latch.reason : wire::Reason::kNoSa;
  const Json document{
      {"schema", 1},
      {"time", Rfc3339(event.time)},
      {"event", state                               ? "state"
                : event.what == Event::What::kStall ? "stall"
                                                    : "move"},
      {"id", latch.id},
      {"from", event.IsNew() ? Json(nullptr) : Json(StateName(event.from))},
      {"to", StateName(latch.state)},
      {"reason", reason == wire::Reason::kNone ? Json(nullptr) : Json(wire::ReasonWord(reason))},
      {"direction", latch.flow.direction == Direction::kIn ? "in" : "out"},
      {"latch", LatchJson(latch)},
      {"broker", OrNull(broker)},
  };
  return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Rfc3339(uint64_t seconds) {
  const auto time = static_cast<time_t>(seconds);
  tm parts;
  char text[64];
  if (gmtime_r(&time, &parts) == nullptr ||
      strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
    return "?";
  }
  return text;
}

std::string ProtocolWord(uint8_t protocol) {
  switch (protocol) {
    case 0:
      return {};
    case kProtocolTcp:
      return "tcp";
    case kProtocolUdp:
      return "udp";
    default:
      return std::to_string(protocol);
  }
}

std::string SaProtocolWord(SaProtocol protocol) {
  switch (protocol) {
    case SaProtocol::kNone:
      return {};
    case SaProtocol::kEsp:
      return "esp";
    case SaProtocol::kAh:
      return "ah";
  }
  return std::to_string(static_cast<int>(protocol));
}

std::string ModeWord(Mode mode) {
  switch (mode) {
    case Mode::kTransport:
      return "transport";
    case Mode::kTunnel:
      return "tunnel";
    case Mode::kBeet:
      return "beet";
    case Mode::kUnknown:
      return {};
  }
  return std::to_string(static_cast<int>(mode));
}

std::string PinWord(Pin pin) {
  switch (pin) {
    case Pin::kAuto:
      return "auto";
    case Pin::kReqid:
      return "reqid";
    case Pin::kSpi:
      return "spi";
  }
  return {};
}

std::string DispositionWord(const Latch& latch) { return latch.suspends ? "suspend" : "reset"; }

std::string OffloadWord(const Latch& latch) {
  if (latch.protection.protocol == SaProtocol::kNone) return {};
  switch (latch.offload) {
    case Offload::kNone:
      return "none";
    case Offload::kCrypto:
      return "crypto";
    case Offload::kPacket:
      return "packet";
  }
  return {};
}

bool NatKnown(const Peering& peering) {
  return peering.nat_local || peering.nat_remote || peering.remote.address.family != Family::kNone;
}

bool AnyPort(const Latch& latch) { return latch.listener != 0 && latch.flow.remote.port == 0; }

bool CountsDropped(const Latch& latch) {
  return latch.state == State::kListener && latch.flow.protocol == kProtocolUdp;
}

std::string SpiText(uint32_t spi) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", spi);
  return text;
}

}  // namespace latchkey::tool
