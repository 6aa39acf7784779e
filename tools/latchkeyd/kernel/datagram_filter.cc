#include "tools/latchkeyd/kernel/datagram_filter.h"

#include <bpf/bpf.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ranges>
#include <utility>

#include "tools/latchkeyd/kernel/map_update.h"

namespace latchkey::broker {
namespace {

std::unexpected<Error> Refused(const char* step) {
  const int number = errno;
  if (number == E2BIG || number == ENOSPC) {
    return Fail(Reason::kLimit, step, "the kernel's map is full");
  }
  std::string why = std::strerror(number);
  if (number == EPERM) why += " (before Linux 5.19 it takes CAP_BPF)";
  return Fail(Reason::kKernelRefused, step, why);
}

Address AddressFrom(uint32_t family, const uint8_t (&octets)[16]) {
  Address address;
  address.family = family == LATCHKEY_V4 ? Family::kV4 : Family::kV6;
  std::memcpy(address.octets.data(), octets, sizeof(octets));
  return address;
}

latchkey_admitted_key KeyOf(const DatagramAdmission& admission) {
  latchkey_admitted_key key{};
  key.cookie = admission.cookie;
  key.tag = admission.tag;
  key.port = admission.remote.port;
  key.family = FamilyOf(admission.remote.address);
  CopyTo(key.address, admission.remote.address);
  return key;
}

DatagramAdmission AdmissionOf(const latchkey_admitted_key& key) {
  return {key.cookie, {AddressFrom(key.family, key.address), key.port}, key.tag};
}

// All keys of a map. What changes meanwhile may be missed: nobody else changes ours.
template <typename Key>
std::vector<Key> KeysOf(const UniqueFd& map, size_t most) {
  std::vector<Key> keys;
  Key key{};
  const Key* last = nullptr;
  while (keys.size() < most && bpf_map_get_next_key(map.get(), last, &key) == 0) {
    keys.push_back(key);
    last = &keys.back();
  }
  return keys;
}

std::optional<latchkey_held> HeldOf(const DatagramMaps& maps, uint64_t cookie) {
  latchkey_held held{};
  if (bpf_map_lookup_elem(maps.held.get(), &cookie, &held) != 0) return std::nullopt;
  return held;
}

}  // namespace

DatagramFilter::DatagramFilter(const DatagramOptions& options)
    : tag_mask_(options.tag_mask), maps_(LoadDatagramMaps(options.pins)) {
  if (!maps_) return;
  const uint32_t zero = 0;
  latchkey_settings before{};
  if (maps_->inherited && (bpf_map_lookup_elem(maps_->settings.get(), &zero, &before) != 0 ||
                           before.tag_mask != tag_mask_)) {
    // By another mask a mark may be the tag of another SA.
    for (const auto& key :
         KeysOf<latchkey_admitted_key>(maps_->admitted, LATCHKEY_MOST_ADMISSIONS)) {
      if (EraseAdmission(Admissions(), key)) continue;
      maps_ = Refused("drop what another mask admitted");
      return;
    }
  }
  const latchkey_settings settings{tag_mask_};
  if (bpf_map_update_elem(maps_->settings.get(), &zero, &settings, BPF_ANY) != 0) {
    maps_ = Refused("say which marks are tags");
    return;
  }
  if (maps_->inherited) Inherit();
}

DatagramFilter::~DatagramFilter() {
  if (!maps_ || maps_->pins.empty() || keeps_pins_) return;
  uint64_t cookie = 0;
  if (bpf_map_get_next_key(maps_->held.get(), nullptr, &cookie) != 0) {
    UnpinDatagramMaps(maps_->pins);
  }
}

std::string DatagramFilter::Complaint() const {
  if (!maps_) return maps_.error().ToString();
  if (maps_->not_pinned.empty()) return {};
  return "no later broker will find the filters of datagrams: " + maps_->not_pinned;
}

std::map<std::string, int> DatagramFilter::RegionMaps() const {
  if (!maps_) return {};
  return {{"held", maps_->held.get()},
          {"exact", maps_->exact.get()},
          {"regions", maps_->regions.get()}};
}

std::vector<uint64_t> DatagramFilter::Held() const {
  if (!maps_) return {};
  return KeysOf<uint64_t>(maps_->held, LATCHKEY_MOST_SOCKETS);
}

AdmissionMaps DatagramFilter::Admissions() const {
  return {maps_->admitted.get(), maps_->slots.get()};
}

void DatagramFilter::Inherit() {
  std::unordered_map<uint64_t, uint32_t> generations;
  for (const uint64_t cookie : Held()) {
    if (const auto held = HeldOf(*maps_, cookie)) generations[cookie] = held->generation;
  }
  const auto counts = [&](uint64_t cookie, uint32_t generation) {
    const auto found = generations.find(cookie);
    return found != generations.end() && found->second == generation;
  };
  // What a broker that was killed left half done is of no socket, or of another generation.
  for (const auto& key : KeysOf<latchkey_exact_key>(maps_->exact, LATCHKEY_MOST_EXACT)) {
    if (counts(key.cookie, key.generation)) {
      entries_[key.cookie].exact.emplace_back(key, 0);
      entries_[key.cookie].keys_alone = true;
    } else {
      bpf_map_delete_elem(maps_->exact.get(), &key);
    }
  }
  for (const auto& key : KeysOf<latchkey_region_key>(maps_->regions, LATCHKEY_MOST_REGIONS)) {
    if (counts(key.cookie, key.generation)) {
      entries_[key.cookie].prefixes.emplace_back(key, latchkey_region{});
      entries_[key.cookie].keys_alone = true;
    } else {
      bpf_map_delete_elem(maps_->regions.get(), &key);
    }
  }
  for (const auto& key : KeysOf<latchkey_admitted_key>(maps_->admitted, LATCHKEY_MOST_ADMISSIONS)) {
    if (generations.contains(key.cookie)) {
      admitted_.insert(AdmissionOf(key));
    } else {
      static_cast<void>(EraseAdmission(Admissions(), key));  // of a socket that is no more
    }
  }
  for (const uint64_t cookie : KeysOf<uint64_t>(maps_->dropped, LATCHKEY_MOST_SOCKETS)) {
    if (!generations.contains(cookie)) bpf_map_delete_elem(maps_->dropped.get(), &cookie);
  }
  inherited_ = admitted_;
}

Result<void> DatagramFilter::Add(const RegionEntries& entries) const {
  for (const auto& [key, need] : entries.exact) {
    if (PutElement(maps_->exact.get(), &key, &need) != 0) {
      return Refused("give a socket its regions");
    }
  }
  for (const auto& [key, region] : entries.prefixes) {
    if (PutElement(maps_->regions.get(), &key, &region) != 0) {
      return Refused("give a socket its regions");
    }
  }
  return {};
}

void DatagramFilter::Delete(const RegionEntries& entries) const {
  for (const auto& [key, need] : entries.exact) bpf_map_delete_elem(maps_->exact.get(), &key);
  for (const auto& [key, region] : entries.prefixes) {
    bpf_map_delete_elem(maps_->regions.get(), &key);
  }
}

// In whatever order: of each place comes in at any moment what did, or what is to. What comes is
// first, since it may find no room, and can be taken back for sure.
Result<void> DatagramFilter::Apply(const ExactChange& change, RegionEntries& entries) const {
  const int exact = maps_->exact.get();
  const auto undo = [&](size_t came, size_t gone) {
    for (const auto& [key, need] : change.come | std::views::take(came)) {
      bpf_map_delete_elem(exact, &key);
    }
    for (const auto& [key, need] : change.go | std::views::take(gone)) {
      if (PutElement(exact, &key, &need) != 0) entries.keys_alone = true;
    }
  };
  for (size_t i = 0; i < change.come.size(); ++i) {
    if (PutElement(exact, &change.come[i].first, &change.come[i].second) == 0) continue;
    const std::unexpected<Error> refused = Refused("give a socket its regions");
    undo(i, 0);
    return refused;
  }
  for (size_t i = 0; i < change.go.size(); ++i) {
    if (bpf_map_delete_elem(exact, &change.go[i].first) == 0 || errno == ENOENT) continue;
    const std::unexpected<Error> refused = Refused("take regions from a socket");
    undo(change.come.size(), i);
    return refused;
  }
  return {};
}

// With a filter of these very maps, that cannot be taken off any more.
bool DatagramFilter::IsAttached(int fd) const {
  uint32_t layout = 0;
  int locked = 0;
  socklen_t length = sizeof(locked);
  return bpf_map_lookup_elem(maps_->noted.get(), &fd, &layout) == 0 &&
         getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, &length) == 0 && locked != 0;
}

Result<void> DatagramFilter::Attach(int fd) const {
  uint32_t noted = 0;
  const bool begun = bpf_map_lookup_elem(maps_->noted.get(), &fd, &noted) == 0;
  int locked = 0;
  socklen_t length = sizeof(locked);
  if (getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, &length) != 0) {
    return Refused("getsockopt SO_LOCK_FILTER");
  }
  // EACCES: one of eBPF; else how many instructions there are.
  socklen_t instructions = 0;
  const bool own =
      getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &instructions) != 0 || instructions != 0;
  if (locked != 0 || (own && !begun)) {
    return Fail(Reason::kUnsupported, "filter datagrams",
                locked != 0 ? "the socket has another filter, which is locked"
                            : "the socket has a filter of its program's");
  }
  // The note before the lock: a filter that stays is always known for ours.
  noted = LATCHKEY_LAYOUT;
  if (PutElement(maps_->noted.get(), &fd, &noted) != 0) {
    return Refused("note the filter");
  }
  const int program = maps_->program.get();
  const int yes = 1;
  const char* step = "setsockopt SO_ATTACH_BPF";
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)) == 0) {
    step = "setsockopt SO_LOCK_FILTER";
    if (setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &yes, sizeof(yes)) == 0) return {};
    const std::unexpected<Error> refused = Refused(step);
    static_cast<void>(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, nullptr, 0));
    bpf_map_delete_elem(maps_->noted.get(), &fd);
    return refused;
  }
  const std::unexpected<Error> refused = Refused(step);
  bpf_map_delete_elem(maps_->noted.get(), &fd);
  return refused;
}

Result<void> DatagramFilter::Filter(int fd, uint64_t cookie,
                                    const std::vector<DatagramRegion>& regions) {
  if (!maps_) return std::unexpected(maps_.error());
  if (cookie == 0) return Fail(Reason::kBadRequest, "filter datagrams", "no cookie");
  const std::optional<latchkey_held> before = HeldOf(*maps_, cookie);
  const auto known = entries_.find(cookie);
  if (before && known != entries_.end() && IsAttached(fd)) {
    Result<RegionEntries> entries = EntriesOf(cookie, before->generation, regions);
    if (!entries) return std::unexpected(entries.error());
    if (const std::optional<ExactChange> change = ChangeOf(known->second, *entries)) {
      Result<void> done = Apply(*change, known->second);
      if (!done) return done;
      known->second = std::move(*entries);
      DropInheritedOf(cookie);
      return {};
    }
  }
  return FilterAnew(fd, cookie, regions, before);
}

Result<void> DatagramFilter::FilterAnew(int fd, uint64_t cookie,
                                        const std::vector<DatagramRegion>& regions,
                                        const std::optional<latchkey_held>& before) {
  const latchkey_held after{before ? before->generation + 1 : 1};
  Result<RegionEntries> entries = EntriesOf(cookie, after.generation, regions);
  if (!entries) return std::unexpected(entries.error());
  Result<void> done = Add(*entries);
  if (done) {
    const uint64_t none = 0;
    // A count that is there goes on.
    if (PutElement(maps_->dropped.get(), &cookie, &none, BPF_NOEXIST) != 0 && errno != EEXIST) {
      done = Refused("count what a socket drops");
    }
  }
  if (done && !IsAttached(fd)) done = Attach(fd);
  if (done && PutElement(maps_->held.get(), &cookie, &after) != 0) {
    done = Refused("hold a socket");
  }
  if (!done) {
    Delete(*entries);
    if (!before) bpf_map_delete_elem(maps_->dropped.get(), &cookie);
    return done;
  }
  Delete(std::exchange(entries_[cookie], std::move(*entries)));
  DropInheritedOf(cookie);
  return {};
}

Result<void> DatagramFilter::Admit(const DatagramAdmission& admission) {
  if (!maps_) return std::unexpected(maps_.error());
  if (admission.cookie == 0 || admission.remote.address.family == Family::kNone ||
      admission.tag == 0 || (admission.tag & ~tag_mask_) != 0) {
    return Fail(Reason::kBadRequest, "admit datagrams", "of no socket, place or tag");
  }
  const latchkey_admitted_key key = KeyOf(admission);
  if (!PutAdmission(Admissions(), key)) return Refused("admit datagrams");
  admitted_.insert(admission);
  inherited_.erase(admission);
  return {};
}

void DatagramFilter::Dismiss(const DatagramAdmission& admission) {
  if (!maps_) return;
  const latchkey_admitted_key key = KeyOf(admission);
  if (!EraseAdmission(Admissions(), key)) return;  // known still, to whoever tries again
  admitted_.erase(admission);
  inherited_.erase(admission);
}

void DatagramFilter::Forget(uint64_t cookie) {
  if (!maps_) return;
  // From here on nothing of its regions comes in.
  bpf_map_delete_elem(maps_->held.get(), &cookie);
  if (const auto found = entries_.find(cookie); found != entries_.end()) {
    Delete(found->second);
    entries_.erase(found);
  }
  const auto first = admitted_.lower_bound(DatagramAdmission{cookie, {}, 0});
  std::vector<DatagramAdmission> gone;
  for (auto each = first; each != admitted_.end() && each->cookie == cookie; ++each) {
    gone.push_back(*each);
  }
  for (const DatagramAdmission& each : gone) Dismiss(each);
  bpf_map_delete_elem(maps_->dropped.get(), &cookie);
}

uint64_t DatagramFilter::Dropped(uint64_t cookie) const {
  uint64_t count = 0;
  if (!maps_ || bpf_map_lookup_elem(maps_->dropped.get(), &cookie, &count) != 0) return 0;
  return count;
}

void DatagramFilter::DropInherited(uint32_t tag) {
  std::vector<DatagramAdmission> gone;
  for (const DatagramAdmission& each : inherited_) {
    if (each.tag == tag) gone.push_back(each);
  }
  for (const DatagramAdmission& each : gone) Dismiss(each);
}

void DatagramFilter::DropInheritedOf(uint64_t cookie) {
  std::vector<DatagramAdmission> gone;
  for (auto each = inherited_.lower_bound(DatagramAdmission{cookie, {}, 0});
       each != inherited_.end() && each->cookie == cookie; ++each) {
    gone.push_back(*each);
  }
  for (const DatagramAdmission& each : gone) Dismiss(each);
}

}  // namespace latchkey::broker
