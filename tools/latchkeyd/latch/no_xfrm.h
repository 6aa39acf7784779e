// Settings of devices that keep the SPD out of what passes by them.
#ifndef TOOLS_LATCHKEYD_LATCH_NO_XFRM_H_
#define TOOLS_LATCHKEYD_LATCH_NO_XFRM_H_

#include <algorithm>
#include <set>
#include <string>

#include "policy/model/flow.h"

namespace latchkey::broker {

// Devices, loopback apart, past which packets go without the SPD being asked, by name; "all": by
// every device. The policy of a socket is asked all the same.
struct NoXfrm {
  std::set<std::string> out;    // IPv4 packets that leave: disable_xfrm
  std::set<std::string> in_v4;  // those that come in: disable_policy
  std::set<std::string> in_v6;  // the same of IPv6; of what leaves by that the SPD is always asked
  const std::set<std::string>& In(Family family) const {
    return family == Family::kV6 ? in_v6 : in_v4;
  }

  bool operator==(const NoXfrm&) const = default;
};

// Returns "net.ipv4.conf.eth0.SETTING", as sysctl(8) takes it: a dot in a device's name is a slash.
inline std::string SettingName(std::string device, Family family, const std::string& setting) {
  std::ranges::replace(device, '.', '/');
  const std::string conf = family == Family::kV6 ? "net.ipv6.conf." : "net.ipv4.conf.";
  return conf + device + "." + setting;
}

// Returns "net.ipv4.conf.eth0.SETTING must be 0", for all of these.
inline std::string SettingText(const std::set<std::string>& devices, Family family,
                               const std::string& setting) {
  std::string text;
  for (const std::string& device : devices) {
    if (!text.empty()) text += ", ";
    text += SettingName(device, family, setting);
  }
  return text + " must be 0";
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_NO_XFRM_H_
