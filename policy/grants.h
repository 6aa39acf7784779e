// What a requester may do beyond what everybody may (latchkey-policy(5), PRIVILEGES).
#ifndef POLICY_GRANTS_H_
#define POLICY_GRANTS_H_

#include <cstdint>
#include <string_view>

namespace latchkey::policy {

enum class Grant : uint8_t {
  kBypass = 1,           // go in clear where the system protects
  kWeaken = 2,           // protect otherwise than the system asks
  kOverrideDiscard = 4,  // protect where the system discards; with kBypass also go in clear
};

struct GrantWord {
  std::string_view word;
  Grant grant;
};
inline constexpr GrantWord kGrantWords[] = {{"bypass", Grant::kBypass},
                                            {"weaken", Grant::kWeaken},
                                            {"override-discard", Grant::kOverrideDiscard}};

class Grants {
 public:
  constexpr Grants() = default;
  static constexpr Grants All() { return Grants(7); }

  constexpr bool Has(Grant grant) const { return (bits_ & static_cast<uint8_t>(grant)) != 0; }
  constexpr void Add(Grant grant) { bits_ |= static_cast<uint8_t>(grant); }
  constexpr void Add(Grants grants) { bits_ |= grants.bits_; }
  // To and from a number; bits that stand for nothing are dropped.
  constexpr uint8_t Bits() const { return bits_; }
  static constexpr Grants Of(uint8_t bits) { return Grants(bits & 7); }
  constexpr bool None() const { return bits_ == 0; }

  constexpr bool operator==(const Grants&) const = default;

 private:
  constexpr explicit Grants(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

}  // namespace latchkey::policy

#endif  // POLICY_GRANTS_H_
