#include "tools/latchkeyd/keymgr/vici/spki.h"

#include <cstddef>
#include <cstdint>

namespace latchkey::broker::vici {
namespace {

constexpr uint8_t kInteger = 0x02;
constexpr uint8_t kSequence = 0x30;
constexpr uint8_t kVersion = 0xa0;  // [0], constructed
constexpr size_t kMostLength = 3;   // octets of a length: 16 MiB, more than any message

struct Field {
  uint8_t tag = 0;
  std::string_view whole;
  std::string_view content;
};

// Takes the first field off `octets`.
std::optional<Field> Take(std::string_view& octets) {
  if (octets.size() < 2) return std::nullopt;
  const auto octet = [&](size_t at) { return static_cast<uint8_t>(octets[at]); };
  const uint8_t tag = octet(0);
  if ((tag & 0x1f) == 0x1f) return std::nullopt;  // of several octets: none of ours is
  size_t length = octet(1);
  size_t header = 2;
  if (length >= 0x80) {
    const size_t count = length & 0x7f;
    if (count == 0 || count > kMostLength || octets.size() < 2 + count) return std::nullopt;
    length = 0;
    for (size_t i = 0; i < count; ++i) length = length << 8 | octet(2 + i);
    header += count;
    // The shortest form is the only one.
    if (length < 0x80 || (count > 1 && octet(2) == 0)) return std::nullopt;
  }
  if (octets.size() - header < length) return std::nullopt;
  Field field{tag, octets.substr(0, header + length), octets.substr(header, length)};
  octets.remove_prefix(header + length);
  return field;
}

std::optional<Field> Take(std::string_view& octets, uint8_t tag) {
  const std::optional<Field> field = Take(octets);
  return field && field->tag == tag ? field : std::nullopt;
}

}  // namespace

std::optional<std::string> SubjectPublicKeyInfo(std::string_view der) {
  const std::optional<Field> certificate = Take(der, kSequence);
  if (!certificate || !der.empty()) return std::nullopt;
  std::string_view parts = certificate->content;
  const std::optional<Field> signed_part = Take(parts, kSequence);
  // The algorithm and the signature.
  if (!signed_part || !Take(parts, kSequence) || !Take(parts) || !parts.empty()) {
    return std::nullopt;
  }
  std::string_view fields = signed_part->content;
  if (!fields.empty() && static_cast<uint8_t>(fields[0]) == kVersion) Take(fields);
  if (!Take(fields, kInteger)) return std::nullopt;  // serial number
  // Signature, issuer, validity, subject.
  for (int i = 0; i < 4; ++i) {
    if (!Take(fields, kSequence)) return std::nullopt;
  }
  const std::optional<Field> key = Take(fields, kSequence);
  if (!key) return std::nullopt;
  return std::string(key->whole);
}

}  // namespace latchkey::broker::vici
