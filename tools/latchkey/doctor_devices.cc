#include "tools/latchkey/doctor_devices.h"

#include <set>
#include <string>

namespace latchkey::tool {
namespace {

std::string Name(const std::string& device) {
  return device == "all" ? "every device" : "device " + device;
}

std::string Remedy(const std::string& device, Family family, const std::string& setting) {
  return "set " + broker::SettingName(device, family, setting) + " to 0";
}

}  // namespace

Findings DeviceFindings(const Result<broker::NoXfrm>& devices) {
  if (!devices) {
    return {Note("whether the SPD is asked about what passes the devices is not known: " +
                     devices.error().ToString(),
                 "see with `sysctl -ar disable_xfrm` that it is 0 but for lo")};
  }
  Findings findings;
  for (const std::string& device : devices->out) {
    findings.push_back(Bad(
        Name(device) +
            ": the SPD is not asked about IPv4 packets that leave by it (disable_xfrm): nothing "
            "new is latched that would leave so, and no unconnected UDP socket that a rule "
            "protects sends by IPv4, whichever the device (no-xfrm)",
        Remedy(device, Family::kV4, "disable_xfrm")));
  }
  for (const Family family : {Family::kV4, Family::kV6}) {
    const std::string protocol = family == Family::kV6 ? "IPv6" : "IPv4";
    for (const std::string& device : devices->In(family)) {
      findings.push_back(
          Note(Name(device) + ": the SPD is not asked about " + protocol +
                   " packets that come in by it (disable_policy): servers whose sockets do not ask "
                   "themselves, since not every client is to be protected, or the system alone "
                   "asks, are refused those that are (no-xfrm), whichever the device",
               Remedy(device, family, "disable_policy")));
    }
  }
  if (findings.empty()) {
    findings.push_back(
        Ok("the SPD is asked about what passes the devices (disable_xfrm and "
           "disable_policy are 0)"));
  }
  return findings;
}

}  // namespace latchkey::tool
