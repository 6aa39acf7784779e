#include "policy/nesting.h"

#include <cstdio>

namespace latchkey::policy {
namespace {

class Scanner {
 public:
  Scanner(std::string_view text, int limit) : text_(text), limit_(limit) {}

  std::optional<NestingFault> Run() {
    while (at_ < text_.size() && !fault_) Step();
    return fault_;
  }

 private:
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\n';
  }

  void Fault(std::string text) {
    if (!fault_) fault_ = NestingFault{line_, column_, std::move(text)};
  }

  // Goes past one octet, strings and comments alike: here is where positions and control
  // characters are looked after.
  void Skip() {
    const char c = Peek();
    const auto octet = static_cast<unsigned char>(c);
    const bool lone_return = c == '\r' && Peek(1) != '\n';
    if ((octet < 0x20 && c != '\t' && c != '\n' && c != '\r') || octet == 0x7f || lone_return) {
      char code[8];
      std::snprintf(code, sizeof(code), "%02x", static_cast<unsigned>(octet));
      Fault(std::string("control character \\x") + code + ": expected none in a policy");
    }
    ++at_;
    if (c == '\n') {
      ++line_;
      column_ = 1;
    } else if ((octet & 0xc0) != 0x80) {
      ++column_;
    }
  }

  bool AtTriple(char quote) const { return text_.substr(at_).starts_with(std::string(3, quote)); }

  void String(char quote) {
    const bool multi = AtTriple(quote);
    for (int i = 0; i < (multi ? 3 : 1); ++i) Skip();
    while (at_ < text_.size() && !fault_) {
      const char c = Peek();
      if (c == '\n' && !multi) return;  // a syntax error: the parser stops here
      if (c == quote && (!multi || AtTriple(quote))) break;
      if (c == '\\' && quote == '"' && (multi || Peek(1) != '\n')) Skip();
      if (at_ < text_.size()) Skip();
    }
    for (int i = 0; i < (multi ? 3 : 1) && at_ < text_.size(); ++i) Skip();
    // Up to two quotes may stand right before the closing three.
    for (int i = 0; multi && i < 2 && Peek() == quote && at_ < text_.size(); ++i) Skip();
  }

  void Step() {
    const char c = Peek();
    switch (c) {
      case '#':
        while (at_ < text_.size() && Peek() != '\n' && !fault_) Skip();
        return;
      case '"':
      case '\'':
        if (!MayOpen(c)) return;
        String(c);
        before_ = c;
        return;
      case '[':
      case '{':
        dots_ = 0;
        if (!MayOpen(c)) return;
        if (++depth_ > limit_) {
          Fault("nested too deep: expected at most " + std::to_string(limit_) + " open brackets");
        }
        break;
      case ']':
      case '}':
        if (depth_ > 0) --depth_;
        break;
      case '=':
      case ',':
      case '\n':
        dots_ = 0;
        break;
      case '.':
        if (++dots_ > limit_) {
          Fault("key nested too deep: expected at most " + std::to_string(limit_) + " dots");
        }
        break;
      default:
        if ((static_cast<unsigned char>(c) & 0x80) != 0 && !AtByteOrderMark()) {
          Fault("a character beyond ASCII: expected one only in quotes or in a comment");
        }
        break;
    }
    if (c != ' ' && c != '\t' && c != '\r') before_ = c;
    Skip();
  }

  // Elsewhere the parser takes what is a quote or bracket to us for a part of a value, and the rest
  // would not be what we think it is.
  bool MayOpen(char c) {
    const std::string_view before = c == '[' || c == '{' ? "\n=,[" : "\n=,[{.";
    if (before.find(before_) != std::string_view::npos) return true;
    Fault(std::string(1, c) + " within a value: expected it only at the beginning of one");
    return false;
  }

  // An editor's mark that the text is UTF-8: allowed at its beginning.
  bool AtByteOrderMark() const { return at_ < 3 && text_.starts_with("\xef\xbb\xbf"); }

  std::string_view text_;
  int limit_;
  size_t at_ = 0;
  int line_ = 1;
  int column_ = 1;
  int depth_ = 0;
  int dots_ = 0;
  char before_ = '\n';  // the last one that is no blank
  std::optional<NestingFault> fault_;
};

}  // namespace

std::optional<NestingFault> FindNestingFault(std::string_view text, int limit) {
  return Scanner(text, limit).Run();
}

}  // namespace latchkey::policy
