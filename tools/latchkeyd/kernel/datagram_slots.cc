#include "tools/latchkeyd/kernel/datagram_slots.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>

#include "tools/latchkeyd/kernel/map_update.h"

namespace latchkey::broker {
namespace {

// The program cannot order its reads; elsewhere than on x86-64 the processor could change their
// order.
#if defined(__x86_64__)
constexpr bool kOrdered = true;
#else
constexpr bool kOrdered = false;
#endif

bool Same(const latchkey_admitted_key& one, const latchkey_admitted_key& other) {
  return std::memcmp(&one, &other, sizeof(one)) == 0;
}

bool Read(int slots, uint32_t index, latchkey_slot& slot) {
  return bpf_map_lookup_elem(slots, &index, &slot) == 0;
}

// The kernel copies a value in no certain order: the turn is odd from before until after.
bool Write(int slots, uint32_t index, latchkey_slot slot, const latchkey_admitted_key& admission) {
  slot.turn |= 1;
  if (bpf_map_update_elem(slots, &index, &slot, BPF_ANY) != 0) return false;
  slot.admission = admission;
  if (bpf_map_update_elem(slots, &index, &slot, BPF_ANY) != 0) return false;
  ++slot.turn;
  return bpf_map_update_elem(slots, &index, &slot, BPF_ANY) == 0;
}

}  // namespace

bool PutAdmission(const AdmissionMaps& maps, const latchkey_admitted_key& key) {
  const uint32_t yes = 1;
  if (PutElement(maps.admitted, &key, &yes) != 0) return false;
  if (!kOrdered) return true;
  const uint32_t index = latchkey_slot_of(key.tag);
  latchkey_slot slot{};
  if (!Read(maps.slots, index, slot)) return true;
  // One that is odd a broker was killed over: nobody reads it.
  if (slot.admission.cookie == 0 || (slot.turn & 1) != 0) Write(maps.slots, index, slot, key);
  return true;
}

bool EraseAdmission(const AdmissionMaps& maps, const latchkey_admitted_key& key) {
  const uint32_t index = latchkey_slot_of(key.tag);
  latchkey_slot slot{};
  if (Read(maps.slots, index, slot) && Same(slot.admission, key) &&
      !Write(maps.slots, index, slot, latchkey_admitted_key{})) {
    return false;
  }
  return bpf_map_delete_elem(maps.admitted, &key) == 0 || errno == ENOENT;
}

}  // namespace latchkey::broker
