// VICI's messages and packets (strongSwan, src/libcharon/plugins/vici/README.md): octets to trees
// and back. Strict: what does not follow the format to its last octet is an error as a whole.
//
// A name that stands twice in one section is taken, as charon itself takes it, but neither of the
// two is found by name: what has two answers has none.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_MESSAGE_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "policy/model/error.h"

namespace latchkey::broker::vici {

inline constexpr size_t kMaxPacket =
    size_t{512} * 1024;  // octets, without the length in front: charon's
inline constexpr size_t kMaxName = 255;
inline constexpr size_t kMaxValue = 65535;
inline constexpr size_t kMaxDepth = 16;  // charon's own messages nest five deep

struct Element;
using List = std::vector<std::string>;

// A section, or a whole message: values, lists and sections in the order they came.
struct Section {
  std::vector<Element> elements;

  // Finds by name and kind. Nothing, null or no list where there is none, or more than one.
  std::optional<std::string_view> Value(std::string_view name) const;
  const Section* Sub(std::string_view name) const;
  const List& Items(std::string_view name) const;

  void Add(std::string name, std::string value);
  void Add(std::string name, List items);
  Section& AddSection(std::string name);  // valid until the next one is added

  bool operator==(const Section& other) const;
};

struct Element {
  std::string name;
  std::variant<std::string, List, Section> content;

  const Section* section() const { return std::get_if<Section>(&content); }
  bool operator==(const Element&) const = default;
};

// A value as a decimal, or a hexadecimal, number; nothing for anything else, or for one too large.
std::optional<uint32_t> Decimal(std::optional<std::string_view> text);
std::optional<uint32_t> Hexadecimal(std::optional<std::string_view> text);

enum class PacketType : uint8_t {
  kRequest = 0,
  kResponse = 1,
  kUnknownCommand = 2,
  kRegister = 3,
  kUnregister = 4,
  kConfirm = 5,
  kUnknownEvent = 6,
  kEvent = 7,
};

// True for those that have a name: of the command, or the event.
constexpr bool IsNamed(PacketType type) {
  return type == PacketType::kRequest || type == PacketType::kRegister ||
         type == PacketType::kUnregister || type == PacketType::kEvent;
}

struct Packet {
  PacketType type = PacketType::kRequest;
  std::string name;  // of a named one
  Section message;   // empty where there is none

  bool operator==(const Packet&) const = default;
};

// Octets to a message: sections balanced, no list left open, at most kMaxDepth deep.
Result<Section> DecodeMessage(std::string_view octets);
// Octets, without the length in front, to a packet.
Result<Packet> DecodePacket(std::string_view octets);

// To octets; a packet without the length in front. km-lost where a name, a value, the depth or the
// whole is more than the format or charon takes.
Result<std::string> EncodeMessage(const Section& message);
Result<std::string> EncodePacket(const Packet& packet);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_MESSAGE_H_
