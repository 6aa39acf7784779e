#include "tools/latchkeyd/keymgr/vici/sas.h"

#include <algorithm>
#include <utility>

#include "policy/identity.h"
#include "policy/suites.h"

namespace latchkey::broker::vici {
namespace {

std::string Text(const Section& section, std::string_view name) {
  return std::string(section.Value(name).value_or(""));
}

bool Yes(const Section& section, std::string_view name) { return section.Value(name) == "yes"; }

std::optional<SocketAddress> ReadEnd(const Section& section, const std::string& which) {
  const std::optional<Address> address = Address::Parse(Text(section, which + "-host"));
  const uint32_t port = Decimal(section.Value(which + "-port")).value_or(0);
  if (!address || port > 65535) return std::nullopt;
  return SocketAddress{*address, static_cast<uint16_t>(port)};
}

Mode ReadMode(std::string_view text) {
  if (text == "TRANSPORT" || text == "TRANSPORT_PROXY") return Mode::kTransport;
  if (text == "TUNNEL") return Mode::kTunnel;
  if (text == "BEET") return Mode::kBeet;
  return Mode::kUnknown;
}

std::string OwnName(std::optional<std::string_view> ike) {
  if (!ike) return {};
  const policy::Suite* suite = policy::SuiteByIke(*ike);
  return std::string(suite == nullptr ? *ike : suite->name);
}

std::optional<ChildSa> ReadChild(const Section& section) {
  const std::optional<uint32_t> id = Decimal(section.Value("uniqueid"));
  const std::optional<uint32_t> reqid = Decimal(section.Value("reqid"));
  if (!id || !reqid) return std::nullopt;
  ChildSa child;
  child.name = Text(section, "name");
  child.id = *id;
  child.reqid = *reqid;
  child.state = Text(section, "state");
  child.mode = ReadMode(Text(section, "mode"));
  const std::string protocol = Text(section, "protocol");
  if (protocol == "ESP") child.protocol = SaProtocol::kEsp;
  if (protocol == "AH") child.protocol = SaProtocol::kAh;
  child.encap = Yes(section, "encap");
  child.spi_in = Hexadecimal(section.Value("spi-in")).value_or(0);
  child.spi_out = Hexadecimal(section.Value("spi-out")).value_or(0);
  child.encryption = OwnName(section.Value("encr-alg"));
  child.integrity = OwnName(section.Value("integ-alg"));
  const uint32_t bits = Decimal(section.Value("encr-keysize")).value_or(0);
  child.key_bits = static_cast<uint16_t>(std::min<uint32_t>(bits, UINT16_MAX));
  child.esn = section.Value("esn") == "1";
  child.local_ts = section.Items("local-ts");
  child.remote_ts = section.Items("remote-ts");
  return child;
}

// The one section of a message, which is named like the configuration. An event has values beside
// it ("up"), and a configuration may have any name, theirs too.
const Element* Only(const Section& message) {
  const Element* only = nullptr;
  for (const Element& element : message.elements) {
    if (element.section() == nullptr) continue;
    if (only != nullptr) return nullptr;
    only = &element;
  }
  return only;
}

bool IsUp(const Section& message) {
  return std::ranges::any_of(message.elements, [](const Element& element) {
    return element.name == "up" && std::holds_alternative<std::string>(element.content);
  });
}

}  // namespace

bool IkeSa::authenticated() const {
  return state != "CREATED" && state != "CONNECTING" && state != "DESTROYING" && !state.empty();
}

bool Plain(std::string_view id) {
  if (id.empty() || id.size() > policy::kMaxId) return false;
  if (id.find_first_of(std::string_view("?*\0", 3)) != std::string_view::npos) return false;
  if (id[0] == '%' || id[0] == '(' || id[0] == '^') return false;
  for (const std::string_view kind : {"fqdn:", "email:", "dn:", "ip:", "keyid:"}) {
    if (id.starts_with(kind)) return false;
  }
  // "10.0.0.0/8" and "10.0.0.1-10.0.0.9" are identities too, of many.
  const size_t cut = id.find_first_of("/-");
  return cut == std::string_view::npos || !Address::Parse(id.substr(0, cut));
}

std::optional<IkeSa> ReadIkeSa(std::string_view name, const Section& section) {
  const std::optional<uint32_t> id = Decimal(section.Value("uniqueid"));
  const std::optional<SocketAddress> local = ReadEnd(section, "local");
  const std::optional<SocketAddress> remote = ReadEnd(section, "remote");
  if (!id || !local || !remote) return std::nullopt;
  IkeSa ike;
  ike.name = name;
  ike.id = *id;
  ike.state = Text(section, "state");
  ike.spis = Text(section, "initiator-spi") + '-' + Text(section, "responder-spi");
  ike.local = *local;
  ike.remote = *remote;
  ike.local_id = Text(section, "local-id");
  ike.remote_id = Text(section, "remote-id");
  ike.eap_id = Text(section, "remote-eap-id");
  ike.nat_local = Yes(section, "nat-local");
  ike.nat_remote = Yes(section, "nat-remote");
  ike.nat_any = Yes(section, "nat-any");
  if (const Section* children = section.Sub("child-sas")) {
    for (const Element& element : children->elements) {
      const Section* one = element.section();
      std::optional<ChildSa> child = one == nullptr ? std::nullopt : ReadChild(*one);
      if (child) ike.children.push_back(std::move(*child));
    }
  }
  return ike;
}

std::optional<UpDown> ReadUpDown(const Section& message) {
  const Element* only = Only(message);
  if (only == nullptr) return std::nullopt;
  std::optional<IkeSa> ike = ReadIkeSa(only->name, *only->section());
  if (!ike) return std::nullopt;
  return UpDown{IsUp(message), std::move(*ike)};
}

std::optional<ChildRekey> ReadChildRekey(const Section& message) {
  const Element* only = Only(message);
  if (only == nullptr) return std::nullopt;
  std::optional<IkeSa> ike = ReadIkeSa(only->name, *only->section());
  const Section* children = only->section()->Sub("child-sas");
  const Element* pair = children == nullptr ? nullptr : Only(*children);
  if (!ike || pair == nullptr) return std::nullopt;
  const Section* from = pair->section()->Sub("old");
  const Section* to = pair->section()->Sub("new");
  if (from == nullptr || to == nullptr) return std::nullopt;
  std::optional<ChildSa> old_child = ReadChild(*from);
  std::optional<ChildSa> new_child = ReadChild(*to);
  if (!old_child || !new_child) return std::nullopt;
  ike->children.clear();
  return ChildRekey{std::move(*ike), std::move(*old_child), std::move(*new_child)};
}

std::optional<IkeRekey> ReadIkeRekey(const Section& message) {
  const Element* only = Only(message);
  if (only == nullptr) return std::nullopt;
  const Section* from = only->section()->Sub("old");
  const Section* to = only->section()->Sub("new");
  if (from == nullptr || to == nullptr) return std::nullopt;
  std::optional<IkeSa> old_ike = ReadIkeSa(only->name, *from);
  std::optional<IkeSa> new_ike = ReadIkeSa(only->name, *to);
  if (!old_ike || !new_ike) return std::nullopt;
  return IkeRekey{std::move(*old_ike), std::move(*new_ike)};
}

std::optional<IkeUpdate> ReadIkeUpdate(const Section& message) {
  std::optional<UpDown> ike = ReadUpDown(message);
  const std::optional<SocketAddress> local = ReadEnd(message, "local");
  const std::optional<SocketAddress> remote = ReadEnd(message, "remote");
  if (!ike || !local || !remote) return std::nullopt;
  return IkeUpdate{std::move(ike->ike), *local, *remote};
}

LogLine ReadLogLine(const Section& message) {
  return LogLine{Text(message, "group"), Decimal(message.Value("ikesa-uniqueid")).value_or(0),
                 Text(message, "msg")};
}

}  // namespace latchkey::broker::vici
