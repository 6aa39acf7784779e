#include "policy/identity.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "policy/model/address.h"

namespace latchkey::policy {
namespace {

enum class IdKind : uint8_t { kFqdn, kEmail, kDn, kIp, kKeyid };

struct TypedId {
  IdKind kind;
  std::string_view value;
};

struct KindName {
  std::string_view prefix;
  IdKind kind;
};

constexpr KindName kKinds[] = {{"fqdn:", IdKind::kFqdn},
                               {"email:", IdKind::kEmail},
                               {"dn:", IdKind::kDn},
                               {"ip:", IdKind::kIp},
                               {"keyid:", IdKind::kKeyid}};

TypedId TypeOf(std::string_view id) {
  for (const KindName& name : kKinds) {
    if (id.starts_with(name.prefix)) return {name.kind, id.substr(name.prefix.size())};
  }
  if (Address::Parse(id)) return {IdKind::kIp, id};
  if (id.find('=') != std::string_view::npos) return {IdKind::kDn, id};
  if (id.find('@') != std::string_view::npos) return {IdKind::kEmail, id};
  return {IdKind::kFqdn, id};
}

// Not tolower(): that one asks the locale.
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool EqualNoCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, Lower, Lower);
}

bool HostMatches(std::string_view pattern, std::string_view host) {
  // A name that itself has a "*" is a certificate's wildcard: no host, so none that a pattern
  // means.
  if (host.find('*') != std::string_view::npos) return false;
  if (pattern == "*") return !host.empty() && host.find('.') == std::string_view::npos;
  if (!pattern.starts_with("*.")) return EqualNoCase(pattern, host);
  const size_t dot = host.find('.');
  return dot != std::string_view::npos && dot > 0 && pattern.size() > 2 &&
         EqualNoCase(pattern.substr(1), host.substr(dot));
}

}  // namespace

bool IdMatches(std::string_view pattern, std::string_view id) {
  const TypedId want = TypeOf(pattern);
  const TypedId have = TypeOf(id);
  if (want.kind != have.kind || want.value.empty()) return false;
  switch (want.kind) {
    case IdKind::kFqdn:
      return HostMatches(want.value, have.value);
    case IdKind::kEmail:
      return EqualNoCase(want.value, have.value);
    case IdKind::kIp: {
      const std::optional<Address> address = Address::Parse(want.value);
      return address && address == Address::Parse(have.value);
    }
    case IdKind::kDn:
    case IdKind::kKeyid:
      return want.value == have.value;
  }
  return false;
}

std::string IdFault(std::string_view id, bool wildcard) {
  // Key ids are any octets at all, but a NUL would end the name on the wire.
  if (id.empty() || id.size() > kMaxId || id.find('\0') != std::string_view::npos) {
    return "expected 1 to 255 octets without a NUL";
  }
  TypedId typed = TypeOf(id);
  if (typed.value.empty()) return "expected a name after the kind";
  switch (typed.kind) {
    case IdKind::kIp:
      return Address::Parse(typed.value) ? "" : "expected an IP address after \"ip:\"";
    case IdKind::kFqdn:
      if (wildcard && typed.value == "*") return {};
      if (wildcard && typed.value.starts_with("*.") && typed.value.size() > 2) {
        typed.value.remove_prefix(2);
      }
      break;
    case IdKind::kEmail:
      break;
    case IdKind::kDn:
    case IdKind::kKeyid:
      return {};
  }
  if (typed.value.find('*') == std::string_view::npos) return {};
  return wildcard ? "expected \"*\" only as the whole leftmost label of a host name, like "
                    "\"*.db.example\""
                  : "expected a name without \"*\"";
}

}  // namespace latchkey::policy
