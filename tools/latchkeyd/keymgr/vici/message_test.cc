#include "tools/latchkeyd/keymgr/vici/message.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

namespace latchkey::broker::vici {
namespace {

using std::string_literals::operator""s;

struct Bad {
  std::string octets;
  const char* why;
};

class Trees {
 public:
  explicit Trees(uint32_t seed) : random_(seed) {}

  Section Make(size_t depth = 0) {
    Section section;
    for (size_t count = Below(5); count > 0; --count) {
      switch (Below(depth < kMaxDepth ? 3 : 2)) {
        case 0:
          section.Add(Text(kMaxName), Text(300));
          break;
        case 1: {
          List items(Below(4));
          for (std::string& item : items) item = Text(300);
          section.Add(Text(20), std::move(items));
          break;
        }
        default:
          section.AddSection(Text(20)) = Make(depth + 1);
      }
    }
    return section;
  }
  std::string Text(size_t longest) {
    std::string text(Below(longest + 1), '\0');
    for (char& c : text) c = static_cast<char>(Below(256));
    return text;
  }
  size_t Below(size_t limit) { return random_() % limit; }

 private:
  std::mt19937 random_;
};

TEST_CASE("The example of VICI's description, octet by octet") {
  Section message;
  message.Add("key1", "value1");
  Section& section = message.AddSection("section1");
  section.AddSection("sub-section").Add("key2", "value2");
  section.Add("list1", List{"item1", "item2"});
  const std::string octets =
      "\x03\x04key1\0\x06value1\x01\x08section1\x01\x0bsub-section\x03\x04key2\0\x06value2\x02"
      "\x04\x05list1\x05\0\x05item1\x05\0\x05item2\x06\x02"s;
  CHECK(EncodeMessage(message) == octets);
  CHECK(DecodeMessage(octets) == message);
}

TEST_CASE("What is written reads as itself") {
  Trees trees(1);
  for (int i = 0; i < 500; ++i) {
    const Section message = trees.Make();
    const Result<std::string> octets = EncodeMessage(message);
    REQUIRE(octets);
    CHECK(DecodeMessage(*octets) == message);
    for (const PacketType type : {PacketType::kRequest, PacketType::kResponse, PacketType::kEvent,
                                  PacketType::kConfirm, PacketType::kRegister}) {
      Packet packet{type, IsNamed(type) ? trees.Text(kMaxName) : "", message};
      const Result<std::string> sent = EncodePacket(packet);
      REQUIRE(sent);
      CHECK(DecodePacket(*sent) == packet);
    }
    // No proper beginning of it is a message, but where an element of the root ends.
    if (octets->empty()) continue;
    const size_t cut = trees.Below(octets->size());
    if (const Result<Section> part = DecodeMessage(octets->substr(0, cut))) {
      CHECK(part->elements.size() < message.elements.size());
    }
  }
}

TEST_CASE("What is no message") {
  for (const Bad& bad : {
           Bad{"\x02"s, "end of nothing"},
           Bad{"\x00"s, "no such element"},
           Bad{"\x07"s, "no such element"},
           Bad{"\xff"s, "no such element"},
           Bad{"\x05\0\x01x"s, "an item outside of a list"},
           Bad{"\x06"s, "the end of no list"},
           Bad{"\x03"s, "no name"},
           Bad{"\x03\x05key"s, "a short name"},
           Bad{"\x03\x03key"s, "no value"},
           Bad{"\x03\x03key\0"s, "half a length"},
           Bad{"\x03\x03key\0\x02x"s, "a short value"},
           Bad{"\x03\x03key\xff\xffx"s, "a value beyond the message"},
           Bad{"\x01\x01s"s, "a section left open"},
           Bad{"\x01\x01s\x01\x01t\x02"s, "a section left open"},
           Bad{"\x01\x01s\x02\x02"s, "one end too many"},
           Bad{"\x04\x01l"s, "a list left open"},
           Bad{"\x04\x01l\x05\0\x01x"s, "a list left open"},
           Bad{"\x04\x01l\x02"s, "the end of a section in a list"},
           Bad{"\x04\x01l\x04\x01m\x06\x06"s, "a list in a list"},
           Bad{"\x04\x01l\x03\x01k\0\x01v\x06"s, "a value in a list"},
           Bad{"\x01\x01s\x04\x01l\x02\x06"s, "ends crossed"},
       }) {
    INFO(bad.why);
    const Result<Section> message = DecodeMessage(bad.octets);
    REQUIRE_FALSE(message);
    CHECK(message.error().reason == Reason::kKmLost);
    CHECK_FALSE(message.error().value.empty());
    CHECK_FALSE(DecodePacket("\x01"s + bad.octets));
  }
  CHECK_FALSE(DecodePacket(""));
  CHECK_FALSE(DecodePacket("\x08"s));
  CHECK_FALSE(DecodePacket("\x07"s));          // an event without a name
  CHECK_FALSE(DecodePacket("\x07\x05list"s));  // a name that does not end
  CHECK(DecodePacket("\x07\x04list"s));
  CHECK(DecodePacket("\x05"s));
}

TEST_CASE("Depth and size have ends") {
  std::string deep;
  for (size_t i = 0; i < kMaxDepth; ++i) deep += "\x01\x01s"s;
  CHECK(DecodeMessage(deep + std::string(kMaxDepth, '\x02')));
  CHECK_FALSE(DecodeMessage(deep + "\x01\x01s"s + std::string(kMaxDepth + 1, '\x02')));
  // Far too deep: refused before the stack is.
  std::string abyss;
  for (size_t i = 0; i < 100'000; ++i) abyss += "\x01\x01s"s;
  CHECK_FALSE(DecodeMessage(abyss));

  Section large;
  for (int i = 0; i < 9; ++i) large.Add("v", std::string(60'000, 'x'));
  CHECK_FALSE(EncodeMessage(large));
  CHECK_FALSE(DecodeMessage(std::string(kMaxPacket + 1, '\x02')));
  Section name;
  name.Add(std::string(kMaxName + 1, 'n'), "v");
  CHECK_FALSE(EncodeMessage(name));
  Section value;
  value.Add("v", std::string(kMaxValue + 1, 'v'));
  CHECK_FALSE(EncodeMessage(value));
  CHECK_FALSE(EncodePacket({PacketType::kRequest, std::string(kMaxName + 1, 'n'), {}}));
}

TEST_CASE("What has two answers has none") {
  Section section;
  section.Add("once", "1");
  section.Add("twice", "1");
  section.Add("twice", "2");
  section.Add("both", "1");
  section.AddSection("both").Add("in", "x");
  section.Add("list", List{"a"});
  CHECK(section.Value("once") == "1");
  CHECK_FALSE(section.Value("twice"));
  CHECK_FALSE(section.Value("both"));
  CHECK(section.Sub("both") == nullptr);
  CHECK_FALSE(section.Value("none"));
  CHECK(section.Items("list") == List{"a"});
  CHECK(section.Items("once").empty());
}

TEST_CASE("Numbers are whole and fit") {
  CHECK(Decimal("0") == 0);
  CHECK(Decimal("4294967295") == 4294967295);
  CHECK(Hexadecimal("c0ffee01") == 0xc0ffee01);
  for (const char* text : {"", " 1", "1 ", "-1", "+1", "0x1", "4294967296", "1a"}) {
    INFO(text);
    CHECK_FALSE(Decimal(text));
  }
  CHECK_FALSE(Hexadecimal("1c0ffee01"));
  CHECK_FALSE(Decimal(std::nullopt));
}

}  // namespace
}  // namespace latchkey::broker::vici
