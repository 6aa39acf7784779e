#include "tools/latchkey/doctor_keys.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

// charon allots its own reqids from 1 upwards, and again once they are free; whoever fixes one is
// told to take it from here on.
constexpr uint32_t kFirstStatic = 65'536;

void JudgeChild(const ChildFacts& child, Findings& findings) {
  const std::string name = "child " + child.connection + "." + child.name;
  if (child.reqids.empty()) {
    findings.push_back(
        Note(name + ": not up, and whether its reqid is fixed is not known",
             "nothing, where its peer is away or nobody has asked for it yet; to see "
             "how it goes: swanctl --initiate --child " +
                 child.name));
    return;
  }
  const auto allotted =
      std::ranges::find_if(child.reqids, [](uint32_t reqid) { return reqid < kFirstStatic; });
  if (allotted == child.reqids.end()) {
    findings.push_back(
        Ok(name + ": its reqid is fixed (" + std::to_string(child.reqids.front()) + ")"));
    return;
  }
  findings.push_back(Note(
      name + ": its reqid " + std::to_string(*allotted) +
          " may be one that charon allots and uses again for other peers: its latches are pinned "
          "by SPI, with a short stall at every rekey",
      "give it a reqid of its own, from " + std::to_string(kFirstStatic) + " on"));
}

}  // namespace

KeyManagerFacts ReachKeyManager(const std::string& socket_path) {
  KeyManagerFacts facts;
  facts.socket = socket_path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof(address.sun_path)) {
    facts.error = ENAMETOOLONG;
    return facts;
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    facts.error = errno;
  }
  return facts;
}

Findings KeyManagerFindings(const KeyManagerFacts& facts) {
  Findings findings;
  switch (facts.error) {
    case 0:
      findings.push_back(Ok("charon answers at " + facts.socket));
      break;
    case ENOENT:
      findings.push_back(Note("no charon at " + facts.socket +
                                  ": SAs are those that somebody keys by hand (latchkey sa)",
                              "start charon where it is to negotiate them"));
      return findings;
    case EACCES:
    case EPERM:
      findings.push_back(
          Note("not root: charon's socket " + facts.socket + " was not tried", "run it as root"));
      return findings;
    default:
      findings.push_back(
          Bad("charon's socket " + facts.socket + " does not answer: " + std::strerror(facts.error),
              "start charon, or see why it hangs"));
      return findings;
  }
  if (!facts.listed) {
    findings.push_back(
        Note("charon does not say in time which of its children have a fixed reqid: latches under "
             "another are pinned by SPI, with a short stall at every rekey",
             "ask again, or see with swanctl --list-conns whether it hangs"));
    return findings;
  }
  for (const ChildFacts& child : facts.children) JudgeChild(child, findings);
  if (facts.children.empty()) {
    findings.push_back(Note("charon has no children configured: it can negotiate no SA",
                            "write them into swanctl.conf, and load them: swanctl --load-all"));
  }
  return findings;
}

}  // namespace latchkey::tool
