#include "tools/latchkeyd/kernel/datagram_maps.h"

#include <utility>
#include <vector>

#include "tools/latchkeyd/kernel/bpf_object.h"
#include "tools/latchkeyd/kernel/datagram_layout.h"

namespace latchkey::broker {
namespace {

constexpr const char* kProgram = "latchkey_filter";

alignas(8) constexpr uint8_t kObject[] = {
#include "tools/latchkeyd/kernel/datagram_program.inc"
};

const std::vector<std::string>& Maps() {
  static const std::vector<std::string> names = {"settings", "held",    "admitted", "slots",
                                                 "exact",    "regions", "dropped",  "noted"};
  return names;
}

}  // namespace

Result<DatagramMaps> LoadDatagramMaps(const std::string& base) {
  const BpfSource source{
      "datagram filter", kObject, std::to_string(LATCHKEY_LAYOUT), {kProgram}, Maps()};
  Result<BpfObject> object = LoadBpf(source, base);
  if (!object) return std::unexpected(object.error());
  DatagramMaps maps;
  maps.program = std::move(object->programs.at(kProgram));
  maps.settings = std::move(object->maps.at("settings"));
  maps.held = std::move(object->maps.at("held"));
  maps.admitted = std::move(object->maps.at("admitted"));
  maps.slots = std::move(object->maps.at("slots"));
  maps.exact = std::move(object->maps.at("exact"));
  maps.regions = std::move(object->maps.at("regions"));
  maps.dropped = std::move(object->maps.at("dropped"));
  maps.noted = std::move(object->maps.at("noted"));
  maps.pins = std::move(object->pins);
  maps.inherited = object->inherited;
  maps.not_pinned = std::move(object->not_pinned);
  return maps;
}

void UnpinDatagramMaps(const std::string& pins) { UnpinBpf(Maps(), pins); }

}  // namespace latchkey::broker
