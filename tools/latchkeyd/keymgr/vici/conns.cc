#include "tools/latchkeyd/keymgr/vici/conns.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/sas.h"

namespace latchkey::broker::vici {
namespace {

// Sets every bit below `length`, or clears it.
Address Edge(Address base, int length, bool up) {
  for (int bit = length; bit < base.Bits(); ++bit) {
    const auto mask = static_cast<uint8_t>(0x80 >> bit % 8);
    uint8_t& octet = base.octets[static_cast<size_t>(bit / 8)];
    octet = up ? octet | mask : octet & static_cast<uint8_t>(~mask);
  }
  return base;
}

bool ReadAddresses(std::string_view text, TrafficSelector& selector) {
  if (text == "dynamic") {
    selector.dynamic = true;
    return true;
  }
  if (const size_t dots = text.find(".."); dots != std::string_view::npos) {
    const std::optional<Address> low = Address::Parse(text.substr(0, dots));
    const std::optional<Address> high = Address::Parse(text.substr(dots + 2));
    if (!low || !high || low->family != high->family || *high < *low) return false;
    selector.low = *low;
    selector.high = *high;
    return true;
  }
  const size_t slash = text.find('/');
  const std::optional<Address> base = Address::Parse(text.substr(0, slash));
  if (!base || slash == std::string_view::npos) return false;
  const std::optional<uint32_t> length = Decimal(text.substr(slash + 1));
  if (!length || *length > static_cast<uint32_t>(base->Bits())) return false;
  selector.low = Edge(*base, static_cast<int>(*length), false);
  selector.high = Edge(*base, static_cast<int>(*length), true);
  return true;
}

std::optional<uint8_t> ReadProtocol(const std::string& text) {
  if (const std::optional<uint32_t> number = Decimal(text)) {
    if (*number > 255) return std::nullopt;
    return static_cast<uint8_t>(*number);
  }
  protoent entry{};
  protoent* found = nullptr;
  char buffer[2048];
  if (getprotobyname_r(text.c_str(), &entry, buffer, sizeof(buffer), &found) != 0) found = nullptr;
  if (found == nullptr || found->p_proto < 0 || found->p_proto > 255) return std::nullopt;
  return static_cast<uint8_t>(found->p_proto);
}

std::optional<uint16_t> ReadPort(const std::string& text, uint8_t protocol) {
  if (const std::optional<uint32_t> number = Decimal(text)) {
    if (*number > 65535) return std::nullopt;
    return static_cast<uint16_t>(*number);
  }
  const char* family = nullptr;
  if (protocol == 6) family = "tcp";
  if (protocol == 17) family = "udp";
  servent entry{};
  servent* found = nullptr;
  char buffer[4096];
  if (getservbyname_r(text.c_str(), family, &entry, buffer, sizeof(buffer), &found) != 0) {
    found = nullptr;
  }
  if (found == nullptr) return std::nullopt;
  return ntohs(static_cast<uint16_t>(found->s_port));
}

bool ReadPorts(std::string_view text, TrafficSelector& selector) {
  // Names of services have dashes too: a range is two numbers.
  if (const size_t dash = text.find('-'); dash != std::string_view::npos) {
    const std::optional<uint32_t> low = Decimal(text.substr(0, dash));
    const std::optional<uint32_t> high = Decimal(text.substr(dash + 1));
    if (low && high && *low <= *high && *high <= 65535) {
      selector.ports = {static_cast<uint16_t>(*low), static_cast<uint16_t>(*high)};
      return true;
    }
  }
  const std::optional<uint16_t> port = ReadPort(std::string(text), selector.protocol);
  if (port) selector.ports = {*port, *port};
  return port.has_value();
}

std::vector<TrafficSelector> ReadSelectors(const List& texts) {
  std::vector<TrafficSelector> selectors;
  for (const std::string& text : texts) {
    if (const std::optional<TrafficSelector> one = ReadSelector(text)) selectors.push_back(*one);
  }
  return selectors;
}

AuthConfig ReadAuth(const Section& section) {
  AuthConfig round;
  round.id = section.Value("id").value_or("");
  const std::string_view kind = section.Value("class").value_or("");
  if (kind == "public key") round.auth = "pubkey";
  if (kind == "pre-shared key") round.auth = "psk";
  if (kind == "EAP") round.auth = "eap";
  if (kind == "XAuth") round.auth = "xauth";
  round.ca_id = section.Value("ca_id").value_or("");
  round.revocation = section.Value("revocation").value_or("");
  for (const Element& element : section.elements) {
    const auto* list = std::get_if<List>(&element.content);
    const bool empty = list != nullptr && list->empty();
    const bool known = element.name == "class" || element.name == "id" || element.name == "ca_id" ||
                       element.name == "revocation";
    if (empty || known) continue;
    if (element.name == "certs") {
      round.certs = true;
    } else if (round.bound.empty()) {
      round.bound = element.name;
    }
  }
  return round;
}

}  // namespace

std::optional<TrafficSelector> ReadSelector(std::string_view text) {
  TrafficSelector selector;
  const size_t bracket = text.find('[');
  if (!ReadAddresses(text.substr(0, bracket), selector)) return std::nullopt;
  if (bracket == std::string_view::npos) return selector;
  if (!text.ends_with(']')) return std::nullopt;
  std::string_view inner = text.substr(bracket + 1);
  inner.remove_suffix(1);
  const size_t slash = inner.find('/');
  const std::optional<uint8_t> protocol = ReadProtocol(std::string(inner.substr(0, slash)));
  if (!protocol) return std::nullopt;
  selector.protocol = *protocol;
  if (slash == std::string_view::npos) return selector;
  if (!ReadPorts(inner.substr(slash + 1), selector)) return std::nullopt;
  return selector;
}

std::string ConnConfig::RemoteAuth() const {
  std::string auth;
  for (const AuthConfig& round : remote) {
    if (round.auth != "xauth") auth = round.auth;
  }
  return auth;
}

std::string ConnConfig::RemoteId() const {
  std::string id;
  for (const AuthConfig& round : remote) {
    if (!round.id.empty()) id = round.id;
  }
  return id;
}

std::string ConnConfig::FixedRemoteId() const {
  const std::string id = RemoteId();
  if (!Plain(id)) return {};
  const bool fixed = std::ranges::all_of(remote, [&id](const AuthConfig& round) {
    return round.auth == "xauth" || (round.id == id && round.auth != "eap");
  });
  return fixed ? id : "";
}

std::optional<ConnConfig> ReadConn(const Section& message) {
  if (message.elements.size() != 1 || message.elements[0].section() == nullptr) {
    return std::nullopt;
  }
  const Section& section = *message.elements[0].section();
  ConnConfig conn;
  conn.name = message.elements[0].name;
  conn.version = section.Value("version").value_or("");
  conn.rekey_time = section.Value("rekey_time").value_or("");
  conn.reauth_time = section.Value("reauth_time").value_or("");
  conn.dpd_delay = section.Value("dpd_delay").value_or("");
  conn.has_ppk = section.Value("ppk_id") || section.Value("ppk_required");
  conn.local_addresses = section.Items("local_addrs");
  conn.remote_addresses = section.Items("remote_addrs");
  for (const Element& element : section.elements) {
    const Section* one = element.section();
    if (one == nullptr) continue;
    if (element.name.starts_with("local-")) conn.local.push_back(ReadAuth(*one));
    if (element.name.starts_with("remote-")) conn.remote.push_back(ReadAuth(*one));
  }
  if (const Section* children = section.Sub("children")) {
    for (const Element& element : children->elements) {
      const Section* one = element.section();
      if (one == nullptr) continue;
      ChildConfig child;
      child.name = element.name;
      const std::string_view mode = one->Value("mode").value_or("");
      child.rekey_time = one->Value("rekey_time").value_or("");
      if (mode.starts_with("TRANSPORT")) child.mode = Mode::kTransport;
      if (mode == "TUNNEL") child.mode = Mode::kTunnel;
      if (mode == "BEET") child.mode = Mode::kBeet;
      child.local = ReadSelectors(one->Items("local-ts"));
      child.remote = ReadSelectors(one->Items("remote-ts"));
      conn.children.push_back(std::move(child));
    }
  }
  return conn;
}

}  // namespace latchkey::broker::vici
