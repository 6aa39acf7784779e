#include "tools/latchkeyd/keymgr/vici/message.h"

#include <charconv>

namespace latchkey::broker::vici {
namespace {

enum Tag : uint8_t {
  kSectionStart = 1,
  kSectionEnd = 2,
  kKeyValue = 3,
  kListStart = 4,
  kListItem = 5,
  kListEnd = 6,
};

std::unexpected<Error> Bad(const std::string& what) {
  return Fail(Reason::kKmLost, "read VICI message", what);
}

std::unexpected<Error> TooLarge(const std::string& what) {
  return Fail(Reason::kKmLost, "write VICI message", what);
}

class Reader {
 public:
  explicit Reader(std::string_view octets) : left_(octets) {}
  bool done() const { return left_.empty(); }
  std::string_view rest() const { return left_; }

  bool Octet(uint8_t& value) {
    if (left_.empty()) return false;
    value = static_cast<uint8_t>(left_[0]);
    left_.remove_prefix(1);
    return true;
  }
  bool Name(std::string& name) {
    uint8_t length = 0;
    return Octet(length) && Take(length, name);
  }
  bool Value(std::string& value) {
    uint8_t high = 0;
    uint8_t low = 0;
    return Octet(high) && Octet(low) && Take(size_t{high} << 8 | low, value);
  }

 private:
  bool Take(size_t length, std::string& into) {
    if (left_.size() < length) return false;
    into = left_.substr(0, length);
    left_.remove_prefix(length);
    return true;
  }

  std::string_view left_;
};

// Reads the items of a list whose name has been read, and its end.
bool ReadList(Reader& reader, List& items) {
  uint8_t tag = 0;
  while (reader.Octet(tag)) {
    if (tag == kListEnd) return true;
    if (tag != kListItem || !reader.Value(items.emplace_back())) return false;
  }
  return false;
}

// Reads to the end of the section (`depth` > 0) or of the message.
Result<void> ReadSection(Reader& reader, Section& section, size_t depth) {
  uint8_t tag = 0;
  while (reader.Octet(tag)) {
    if (tag == kSectionEnd) {
      if (depth == 0) return Bad("the end of a section that did not begin");
      return {};
    }
    Element element;
    if (tag != kSectionStart && tag != kKeyValue && tag != kListStart) {
      return Bad("element " + std::to_string(tag) + " where none may be");
    }
    if (!reader.Name(element.name)) return Bad("a name that does not end");
    if (tag == kKeyValue) {
      if (!reader.Value(element.content.emplace<std::string>())) {
        return Bad("a value that does not end");
      }
    } else if (tag == kListStart) {
      if (!ReadList(reader, element.content.emplace<List>())) {
        return Bad("a list that does not end, or with more than items in it");
      }
    } else {
      if (depth >= kMaxDepth) return Bad("sections too deep");
      if (Result<void> read = ReadSection(reader, element.content.emplace<Section>(), depth + 1);
          !read) {
        return read;
      }
    }
    section.elements.push_back(std::move(element));
  }
  if (depth > 0) return Bad("a section that does not end");
  return {};
}

void WriteName(std::string& out, std::string_view name) {
  out += static_cast<char>(name.size());
  out += name;
}

void WriteValue(std::string& out, std::string_view value) {
  out += static_cast<char>(value.size() >> 8);
  out += static_cast<char>(value.size() & 0xff);
  out += value;
}

Result<void> WriteSection(std::string& out, const Section& section, size_t depth) {
  if (depth > kMaxDepth) return TooLarge("sections too deep");
  for (const Element& element : section.elements) {
    if (element.name.size() > kMaxName) return TooLarge("a name of more than 255 octets");
    if (const auto* value = std::get_if<std::string>(&element.content)) {
      if (value->size() > kMaxValue) return TooLarge("a value of more than 65535 octets");
      out += static_cast<char>(kKeyValue);
      WriteName(out, element.name);
      WriteValue(out, *value);
    } else if (const auto* items = std::get_if<List>(&element.content)) {
      out += static_cast<char>(kListStart);
      WriteName(out, element.name);
      for (const std::string& item : *items) {
        if (item.size() > kMaxValue) return TooLarge("an item of more than 65535 octets");
        out += static_cast<char>(kListItem);
        WriteValue(out, item);
      }
      out += static_cast<char>(kListEnd);
    } else {
      out += static_cast<char>(kSectionStart);
      WriteName(out, element.name);
      if (Result<void> done = WriteSection(out, std::get<Section>(element.content), depth + 1);
          !done) {
        return done;
      }
      out += static_cast<char>(kSectionEnd);
    }
    if (out.size() > kMaxPacket) return TooLarge("more than 512 KiB");
  }
  return {};
}

std::optional<uint32_t> Number(std::optional<std::string_view> text, int base) {
  if (!text || text->empty()) return std::nullopt;
  uint32_t number = 0;
  const char* begin = text->data();
  const char* end = begin + text->size();
  const auto [stop, error] = std::from_chars(begin, end, number, base);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

// The one element of this name and kind; null when there is none, or another of the name.
template <typename Kind>
const Kind* Find(const std::vector<Element>& elements, std::string_view name) {
  const Kind* found = nullptr;
  bool seen = false;
  for (const Element& element : elements) {
    if (element.name != name) continue;
    if (seen) return nullptr;
    seen = true;
    found = std::get_if<Kind>(&element.content);
  }
  return found;
}

}  // namespace

bool Section::operator==(const Section& other) const { return elements == other.elements; }

std::optional<std::string_view> Section::Value(std::string_view name) const {
  const auto* value = Find<std::string>(elements, name);
  if (value == nullptr) return std::nullopt;
  return *value;
}

const Section* Section::Sub(std::string_view name) const { return Find<Section>(elements, name); }

const List& Section::Items(std::string_view name) const {
  static const List kNone;
  const List* items = Find<List>(elements, name);
  return items == nullptr ? kNone : *items;
}

void Section::Add(std::string name, std::string value) {
  elements.push_back({std::move(name), std::move(value)});
}

void Section::Add(std::string name, List items) {
  elements.push_back({std::move(name), std::move(items)});
}

Section& Section::AddSection(std::string name) {
  elements.push_back({std::move(name), Section{}});
  return std::get<Section>(elements.back().content);
}

std::optional<uint32_t> Decimal(std::optional<std::string_view> text) { return Number(text, 10); }

std::optional<uint32_t> Hexadecimal(std::optional<std::string_view> text) {
  return Number(text, 16);
}

Result<Section> DecodeMessage(std::string_view octets) {
  if (octets.size() > kMaxPacket) return Bad("more than 512 KiB");
  Section message;
  Reader reader(octets);
  if (Result<void> read = ReadSection(reader, message, 0); !read) {
    return std::unexpected(read.error());
  }
  return message;
}

Result<Packet> DecodePacket(std::string_view octets) {
  if (octets.size() > kMaxPacket) return Bad("more than 512 KiB");
  Reader reader(octets);
  uint8_t type = 0;
  if (!reader.Octet(type) || type > static_cast<uint8_t>(PacketType::kEvent)) {
    return Bad(octets.empty() ? "an empty packet" : "packet type " + std::to_string(type));
  }
  Packet packet;
  packet.type = static_cast<PacketType>(type);
  if (IsNamed(packet.type) && !reader.Name(packet.name)) return Bad("a name that does not end");
  Result<Section> message = DecodeMessage(reader.rest());
  if (!message) return std::unexpected(message.error());
  packet.message = std::move(*message);
  return packet;
}

Result<std::string> EncodeMessage(const Section& message) {
  std::string out;
  if (Result<void> done = WriteSection(out, message, 0); !done) {
    return std::unexpected(done.error());
  }
  return out;
}

Result<std::string> EncodePacket(const Packet& packet) {
  if (packet.name.size() > kMaxName) return TooLarge("a name of more than 255 octets");
  std::string out(1, static_cast<char>(packet.type));
  if (IsNamed(packet.type)) WriteName(out, packet.name);
  if (Result<void> done = WriteSection(out, packet.message, 0); !done) {
    return std::unexpected(done.error());
  }
  if (out.size() > kMaxPacket) return TooLarge("more than 512 KiB");
  return out;
}

}  // namespace latchkey::broker::vici
