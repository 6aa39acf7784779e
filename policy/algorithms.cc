#include "policy/algorithms.h"

#include <algorithm>
#include <charconv>

namespace latchkey::policy {
namespace {

bool Lists(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

std::vector<Algorithm> AllAlgorithms() {
  std::vector<Algorithm> all;
  for (const Suite& suite : Suites()) {
    if (suite.kind == Kind::kIntegrity) {
      all.push_back({SaProtocol::kAh, nullptr, 0, &suite});
      continue;
    }
    for (const uint16_t bits : suite.key_bits) {
      if (suite.kind == Kind::kAead) {
        all.push_back({SaProtocol::kEsp, &suite, bits, nullptr});
        continue;
      }
      for (const Suite& integrity : Suites()) {
        if (integrity.kind != Kind::kIntegrity) continue;
        all.push_back({SaProtocol::kEsp, &suite, bits, &integrity});
      }
    }
  }
  return all;
}

bool Accepts(const ProtectionSpec& spec, const Algorithm& algorithm) {
  if (algorithm.protocol != spec.protocol) return false;
  if (algorithm.integrity != nullptr && !spec.integrity.empty() &&
      !Lists(spec.integrity, algorithm.integrity->name)) {
    return false;
  }
  if (algorithm.encryption == nullptr) return true;
  if (spec.encryption.empty()) {
    // A cipher that is named may have no key at all; any cipher that is not must hide something.
    return algorithm.encryption->confidential && algorithm.key_bits >= spec.min_key_bits;
  }
  return Lists(spec.encryption, algorithm.encryption->name) &&
         algorithm.key_bits >= spec.min_key_bits;
}

}  // namespace

std::string Algorithm::ToString() const {
  std::string text;
  if (encryption != nullptr) {
    text = encryption->name;
    if (encryption->key_bits.size() > 1) text += ":" + std::to_string(key_bits);
    if (integrity != nullptr) text += "+";
  }
  if (integrity != nullptr) text += integrity->name;
  return text;
}

std::span<const Algorithm> Algorithms() {
  static const std::vector<Algorithm> all = AllAlgorithms();
  return all;
}

AlgorithmSet Accepted(const ProtectionSpec& spec) {
  AlgorithmSet set;
  const std::span<const Algorithm> all = Algorithms();
  for (size_t i = 0; i < all.size(); ++i) set[i] = Accepts(spec, all[i]);
  return set;
}

std::optional<size_t> PlaceOf(const Protection& protection) {
  const std::span<const Algorithm> all = Algorithms();
  const auto name = [](const Suite* suite) {
    return suite == nullptr ? std::string_view() : suite->name;
  };
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].protocol == protection.protocol &&
        name(all[i].encryption) == protection.encryption &&
        name(all[i].integrity) == protection.integrity &&
        (all[i].encryption == nullptr || all[i].key_bits == protection.key_bits)) {
      return i;
    }
  }
  return std::nullopt;
}

std::string SuiteClasses::Add(std::string_view name) {
  const size_t plus = name.find('+');
  const std::string_view first = name.substr(0, plus);
  const size_t colon = first.find(':');
  const Suite* suite = SuiteByName(first.substr(0, colon));
  if (suite == nullptr) return "expected a suite, like \"aes-gcm-16:256\"";
  std::optional<uint16_t> bits;
  if (colon != std::string_view::npos) {
    uint16_t number = 0;
    const std::string_view digits = first.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), number);
    if (error != std::errc{} || end != digits.end() || suite->kind == Kind::kIntegrity ||
        std::ranges::find(suite->key_bits, number) == suite->key_bits.end()) {
      return "expected a key length that \"" + std::string(suite->name) + "\" has";
    }
    bits = number;
  }
  const Suite* integrity = nullptr;
  if (plus != std::string_view::npos) {
    integrity = SuiteByName(name.substr(plus + 1));
    if (suite->kind != Kind::kCipher || integrity == nullptr ||
        integrity->kind != Kind::kIntegrity) {
      return "expected a cipher that needs integrity, \"+\" and its integrity";
    }
  }
  const std::span<const Algorithm> all = Algorithms();
  AlgorithmSet added;
  for (size_t i = 0; i < all.size(); ++i) {
    const Algorithm& each = all[i];
    if (suite->kind == Kind::kIntegrity) {
      added[i] = each.encryption == nullptr && each.integrity == suite;
    } else {
      added[i] = each.encryption == suite && (!bits || each.key_bits == *bits) &&
                 (integrity == nullptr || each.integrity == integrity);
    }
  }
  for (const AlgorithmSet& earlier : classes_) {
    if ((earlier & added).any()) return "expected each suite in one class";
  }
  classes_.back() |= added;
  return {};
}

AlgorithmSet SuiteClasses::AtLeast(const AlgorithmSet& floor) const {
  AlgorithmSet set = floor;
  AlgorithmSet stronger;
  for (const AlgorithmSet& each : classes_) {
    stronger |= each;
    if ((each & floor).any()) set |= stronger;
  }
  return set;
}

std::string Describe(const AlgorithmSet& set, size_t most) {
  std::string text;
  size_t shown = 0;
  const std::span<const Algorithm> all = Algorithms();
  for (size_t i = 0; i < all.size() && shown < most; ++i) {
    if (!set[i]) continue;
    text += (text.empty() ? "" : ", ") + all[i].ToString();
    ++shown;
  }
  if (set.count() > shown) text += " and " + std::to_string(set.count() - shown) + " more";
  return text.empty() ? "none" : text;
}

}  // namespace latchkey::policy
