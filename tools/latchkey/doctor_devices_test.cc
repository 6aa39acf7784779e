#include "tools/latchkey/doctor_devices.h"

#include <catch2/catch.hpp>
#include <string>

namespace latchkey::tool {
namespace {

TEST_CASE("Each device that keeps the SPD out is named, with the setting") {
  broker::NoXfrm devices;
  CHECK(FindingsText(DeviceFindings(devices)).starts_with("ok    the SPD is asked"));
  devices.out = {"all", "eth0.7"};
  const Findings out = DeviceFindings(devices);
  REQUIRE(out.size() == 2);
  CHECK(AnyBad(out));
  CHECK(out[0].text.starts_with("every device: "));
  CHECK(out[0].todo == "set net.ipv4.conf.all.disable_xfrm to 0");
  CHECK(out[1].text.starts_with("device eth0.7: "));
  CHECK(out[1].text.find("(no-xfrm)") != std::string::npos);
  CHECK(out[1].todo == "set net.ipv4.conf.eth0/7.disable_xfrm to 0");
}

TEST_CASE("Incoming packets: a note, since not everything leans on the SPD there") {
  broker::NoXfrm devices;
  devices.in_v4 = {"vti0"};
  devices.in_v6 = {"vti0"};
  const Findings in = DeviceFindings(devices);
  REQUIRE(in.size() == 2);
  CHECK_FALSE(AnyBad(in));
  CHECK(in[0].kind == Finding::Kind::kNote);
  CHECK(in[0].todo == "set net.ipv4.conf.vti0.disable_policy to 0");
  CHECK(in[1].text.find("IPv6") != std::string::npos);
  CHECK(in[1].todo == "set net.ipv6.conf.vti0.disable_policy to 0");
}

TEST_CASE("Settings that cannot be read are said so") {
  const Findings findings =
      DeviceFindings(Fail(Reason::kKernelRefused, "read settings", "no such folder"));
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].kind == Finding::Kind::kNote);
  CHECK(findings[0].text.find("no such folder") != std::string::npos);
}

}  // namespace
}  // namespace latchkey::tool
