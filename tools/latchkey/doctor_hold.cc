#include "tools/latchkey/doctor_hold.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace latchkey::tool {
namespace {

namespace fs = std::filesystem;

constexpr char kSetting[] = "/sys/net/core/xfrm_larval_drop";

std::string Target(const fs::path& link) {
  std::error_code failed;
  return fs::read_symlink(link, failed).string();
}

}  // namespace

std::vector<HoldFacts> ReadHolds(const std::string& proc) {
  std::vector<HoldFacts> brokers;
  const std::string ours = Target(proc + "/self/ns/net");
  std::error_code failed;
  for (fs::directory_iterator each(proc, failed), end; !failed && each != end;
       each.increment(failed)) {
    const std::string name = each->path().filename();
    HoldFacts facts;
    const auto [last, error] = std::from_chars(name.data(), name.data() + name.size(), facts.pid);
    if (error != std::errc() || last != name.data() + name.size()) continue;
    std::string program;
    std::getline(std::ifstream(each->path() / "comm"), program);
    if (program != "latchkeyd" || Target(each->path() / "ns/net") != ours) continue;
    std::error_code hidden;
    for (fs::directory_iterator fd(each->path() / "fd", hidden); !hidden && fd != end;
         fd.increment(hidden)) {
      facts.holds |= Target(fd->path()).ends_with(kSetting);
    }
    // Of one that went meanwhile, or is not to be looked at, nothing is known.
    if (!hidden) brokers.push_back(facts);
  }
  std::ranges::sort(brokers, {}, &HoldFacts::pid);
  return brokers;
}

Findings HoldFindings(const std::vector<HoldFacts>& brokers) {
  Findings findings;
  for (const HoldFacts& broker : brokers) {
    const std::string who = "latchkeyd (process " + std::to_string(broker.pid) + ")";
    findings.push_back(
        broker.holds
            ? Ok(who + " can hold packets back while their SA is made")
            : Bad(who + " may not write net.core.xfrm_larval_drop: a connection that does not "
                        "block loses its first packet, and a second, where its SA is still to be "
                        "made",
                  "let it write /proc/sys/net/core/xfrm_larval_drop (ReadWritePaths of its unit), "
                  "and restart it"));
  }
  return findings;
}

}  // namespace latchkey::tool
