#include "tests/lab/uml/registers.h"

#include <cpuid.h>

#include <cstdint>
#include <cstring>

namespace latchkey::lab {
namespace {

// Where XSTATE_BV is, and where the header ends.
constexpr size_t kInUseAt = 512;
constexpr size_t kHeaderEnds = 576;

struct Place {
  size_t at;
  size_t octets;
};

// Where the state of one feature is in the standard form.
Place PlaceOf(unsigned feature) {
  unsigned octets = 0;
  unsigned at = 0;
  unsigned c = 0;
  unsigned d = 0;
  __get_cpuid_count(0xd, feature, &octets, &at, &c, &d);
  return {at, octets};
}

}  // namespace

size_t RegisterOctets() {
  unsigned a = 0;
  unsigned enabled = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(0xd, 0, &a, &enabled, &c, &d) == 0) return 0;
  return enabled;
}

bool PadRegisters(std::span<const std::byte> known, std::span<std::byte> whole) {
  if (known.size() < kHeaderEnds || known.size() > whole.size()) return false;
  std::memcpy(whole.data(), known.data(), known.size());
  std::memset(whole.data() + known.size(), 0, whole.size() - known.size());
  uint64_t in_use = 0;
  std::memcpy(&in_use, whole.data() + kInUseAt, sizeof in_use);
  for (unsigned feature = 2; feature < 63; ++feature) {
    const uint64_t bit = uint64_t{1} << feature;
    if ((in_use & bit) == 0) continue;
    const Place place = PlaceOf(feature);
    if (place.at + place.octets > known.size()) in_use &= ~bit;
  }
  std::memcpy(whole.data() + kInUseAt, &in_use, sizeof in_use);
  return true;
}

}  // namespace latchkey::lab
