// Sets of algorithms: what a protection accepts, and what a site calls as strong or stronger.
//
// There are few enough combinations of cipher, key length and integrity to name each one. So "is
// every SA that this accepts also accepted by that?" is a question about sets, answered exactly,
// and nothing compares ciphers by strength but the site's own ordered list.
#ifndef POLICY_ALGORITHMS_H_
#define POLICY_ALGORITHMS_H_

#include <bitset>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "policy/model/protection.h"
#include "policy/suites.h"

namespace latchkey::policy {

// One combination that an SA can have.
struct Algorithm {
  SaProtocol protocol = SaProtocol::kNone;
  const Suite* encryption = nullptr;  // none: AH
  uint16_t key_bits = 0;              // of the cipher
  const Suite* integrity = nullptr;   // none: an AEAD

  std::string ToString() const;  // "aes-gcm-16:256", "aes-cbc:128+hmac-sha1", "hmac-sha1" (AH)
};

// All combinations, in a fixed order: a place in it is what a bit of an AlgorithmSet stands for.
std::span<const Algorithm> Algorithms();

inline constexpr size_t kMostAlgorithms = 128;
using AlgorithmSet = std::bitset<kMostAlgorithms>;

// Returns what `spec` accepts. Encryption left out means any AEAD and any cipher with integrity
// that hide what they carry; `null` and `aes-gmac` must be named. For AH only `integrity` counts.
AlgorithmSet Accepted(const ProtectionSpec& spec);

// Returns the place of an SA's algorithms; nothing for a combination that is none of ours.
std::optional<size_t> PlaceOf(const Protection& protection);

// A site's suites in order: class 0 is the strongest, all of one class are worth the same. A
// combination that is in no class is worth nothing but itself.
class SuiteClasses {
 public:
  // Reads one class: each name "SUITE", "CIPHER+INTEGRITY" or an integrity alone (AH), after a
  // suite or cipher ":BITS" where one key length is meant. A cipher without integrity stands for
  // any. Returns what is wrong with a name ("expected …"), empty when it was added to the last
  // class.
  std::string Add(std::string_view name);
  void BeginClass() { classes_.emplace_back(); }

  bool empty() const { return classes_.empty(); }

  // Returns what meets or exceeds `floor`: the floor itself, and every combination in the class of
  // one of its own or in a stronger class.
  AlgorithmSet AtLeast(const AlgorithmSet& floor) const;

 private:
  std::vector<AlgorithmSet> classes_;
};

// Returns the names of a set, "aes-gcm-16:256, …"; the first `most`, then how many more.
std::string Describe(const AlgorithmSet& set, size_t most = 4);

}  // namespace latchkey::policy

#endif  // POLICY_ALGORITHMS_H_
