#include "tools/latchkey/doctor_kernel.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "tools/latchkeyd/kernel/abort_probe.h"
#include "tools/latchkeyd/kernel/modules.h"

namespace latchkey::tool {
namespace {

constexpr int64_t kLongAcquire = 60;  // seconds
constexpr int64_t kNoAttach = 3;      // of ptrace_scope: not even root
constexpr int kNetlinkXfrm = 6;

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

// True when xfrm_user serves this network namespace: the kernel itself then has a netlink socket of
// its protocol. Nothing where that is not to be seen.
std::optional<bool> ServesXfrm(const std::string& proc) {
  std::ifstream file(proc + "/net/netlink");
  if (!file) return std::nullopt;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string socket;
    int protocol = -1;
    int64_t port = -1;
    if (words >> socket >> protocol >> port && protocol == kNetlinkXfrm && port == 0) return true;
  }
  return false;
}

// The modules that are loaded, and the functions that tell what else is built in.
class Parts {
 public:
  explicit Parts(const std::string& proc) : setting_(proc + "/sys/kernel/modprobe") {
    std::ifstream modules(proc + "/modules");
    for (std::string line; std::getline(modules, line);) {
      loaded_.insert(line.substr(0, line.find(' ')));
    }
    // "ffffffff81000000 t esp_init_state [esp4]"; the addresses are hidden, the names are not.
    std::ifstream symbols(proc + "/kallsyms");
    for (std::string line; std::getline(symbols, line);) {
      any_symbol_ = true;
      std::istringstream words(line);
      std::string address, kind, name;
      words >> address >> kind >> name;
      if (name.ends_with("_init_state")) functions_.insert(name);
    }
  }

  Presence Find(const std::string& module, const std::string& function) const {
    if (loaded_.contains(module) || functions_.contains(function)) return Presence::kThere;
    if (broker::CanLoadModule(module, setting_)) return Presence::kLoadable;
    return any_symbol_ || !loaded_.empty() ? Presence::kMissing : Presence::kUnknown;
  }

 private:
  std::string setting_;
  std::set<std::string> loaded_;
  std::set<std::string> functions_;
  bool any_symbol_ = false;
};

void JudgeTransform(const std::string& what, const std::string& option, Presence presence,
                    bool needed, Findings& findings) {
  switch (presence) {
    case Presence::kThere:
      findings.push_back(Ok("the kernel has " + what));
      break;
    case Presence::kLoadable:
      findings.push_back(Ok("the kernel loads " + what + " when it is first needed"));
      break;
    case Presence::kUnknown:
      findings.push_back(Note("whether the kernel has " + what + " is not known: no list of " +
                                  "modules and symbols is to be seen",
                              "look for " + option + " in the kernel's configuration"));
      break;
    case Presence::kMissing:
      findings.push_back(
          needed ? Bad("the kernel has no " + what + ": no SA can be installed",
                       "run one with " + option)
                 : Note("the kernel has no " + what + ": rules that ask for it find no SA",
                        "run one with " + option + " where a rule asks for it"));
      break;
  }
}

void JudgeSocketPolicies(const KernelFacts& facts, Findings& findings) {
  if (facts.xfrm_user == Presence::kMissing) {
    findings.push_back(Bad("the kernel has no xfrm_user: sockets take no policies",
                           "run one with CONFIG_XFRM_USER"));
    return;
  }
  if (facts.xfrm_user == Presence::kThere) findings.push_back(Ok("the kernel has xfrm_user"));
  if (facts.xfrm_user == Presence::kLoadable) {
    findings.push_back(Ok("xfrm_user can be loaded: latchkeyd does so when it starts"));
  }
  if (facts.xfrm_user == Presence::kUnknown) {
    findings.push_back(Note("whether the kernel has xfrm_user is not known", "run it as root"));
  }
  if (!facts.tried) return;
  const bool not_loaded = facts.socket_policy == EINVAL && facts.xfrm_user != Presence::kThere;
  if (facts.socket_policy == 0) {
    findings.push_back(Ok("sockets take policies"));
  } else if (!not_loaded) {
    findings.push_back(
        Bad(std::string("a socket takes no policy: ") + std::strerror(facts.socket_policy),
            "run where CAP_NET_ADMIN is held over this network namespace"));
  }
}

void JudgeBreaking(const KernelFacts& facts, Findings& findings) {
  const bool reachable = facts.ptrace_scope.value_or(0) < kNoAttach;
  if (!reachable) {
    findings.push_back(
        Note("kernel.yama.ptrace_scope is 3: a broken latch's socket cannot be fetched from its "
             "program and blocked, only aborted from outside (SOCK_DESTROY)",
             "set it to 2 or less, which takes a reboot"));
  }
  if (!facts.tried) {
    findings.push_back(
        Note("not root: not tried whether sockets take policies, and how "
             "connections can be aborted",
             "run it as root"));
    return;
  }
  if (facts.destroy) {
    findings.push_back(Ok("connections can be aborted from outside (SOCK_DESTROY)"));
  } else if (facts.disconnect && reachable) {
    findings.push_back(
        Ok("connections can be aborted through their programs' descriptors; the "
           "kernel has no SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)"));
  } else {
    findings.push_back(
        Bad("no connection can be aborted: a latch that cannot be broken is none, "
            "and latchkeyd makes none",
            "run a kernel with CONFIG_INET_DIAG_DESTROY, or set "
            "kernel.yama.ptrace_scope to 2 or less"));
  }
}

void JudgeSettings(const KernelFacts& facts, Findings& findings) {
  if (facts.larval_drop == 0) {
    findings.push_back(Ok("net.core.xfrm_larval_drop is 0"));
  } else if (facts.larval_drop) {
    findings.push_back(Ok("net.core.xfrm_larval_drop is " + std::to_string(*facts.larval_drop) +
                          ": the broker sets it to 0 while a connection waits for its SA"));
  } else {
    findings.push_back(
        Note("net.core.xfrm_larval_drop is not to be seen here", "run one with CONFIG_XFRM"));
  }
  if (facts.acq_expires && *facts.acq_expires > kLongAcquire) {
    findings.push_back(Note(
        "net.core.xfrm_acq_expires is " + std::to_string(*facts.acq_expires) +
            ": after a key exchange that failed, the kernel asks for an SA between the same ends "
            "again only after so many seconds",
        "set charon.plugins.kernel-netlink.xfrm_acq_expires in strongswan.conf, or where there "
        "is no charon the setting itself, to 30"));
  } else if (facts.acq_expires) {
    findings.push_back(Ok("net.core.xfrm_acq_expires is " + std::to_string(*facts.acq_expires)));
  }
  if (facts.syncookies == 2) {
    findings.push_back(Note(
        "net.ipv4.tcp_syncookies is 2: an IPv4 connection does not inherit its listener's policy, "
        "and until it is accepted the guards alone hold what it sends",
        "set it to 1, which keeps that for floods"));
  } else if (facts.syncookies) {
    findings.push_back(Ok("net.ipv4.tcp_syncookies is " + std::to_string(*facts.syncookies)));
  }
}

}  // namespace

KernelFacts ReadKernel(const KernelPlaces& places) {
  KernelFacts facts;
  const Parts parts(places.proc);
  const std::string modprobe = places.proc + "/sys/kernel/modprobe";
  const std::optional<bool> serves = ServesXfrm(places.proc);
  if (serves == true) {
    facts.xfrm_user = Presence::kThere;
  } else if (broker::CanLoadModule("xfrm_user", modprobe)) {
    facts.xfrm_user = Presence::kLoadable;
  } else {
    facts.xfrm_user = serves ? Presence::kMissing : Presence::kUnknown;
  }
  facts.esp4 = parts.Find("esp4", "esp_init_state");
  facts.esp6 = parts.Find("esp6", "esp6_init_state");
  facts.ah4 = parts.Find("ah4", "ah_init_state");
  facts.ah6 = parts.Find("ah6", "ah6_init_state");
  facts.ipv6 = access((places.proc + "/net/if_inet6").c_str(), F_OK) == 0;
  // Where version 1 is mounted too, it lies in a folder of it.
  for (const char* folder : {"", "/unified"}) {
    facts.cgroup2 |= access((places.cgroup + folder + "/cgroup.controllers").c_str(), F_OK) == 0;
  }
  const std::string settings = places.proc + "/sys";
  facts.larval_drop = ReadNumber(settings + "/net/core/xfrm_larval_drop");
  facts.acq_expires = ReadNumber(settings + "/net/core/xfrm_acq_expires");
  facts.syncookies = ReadNumber(settings + "/net/ipv4/tcp_syncookies");
  facts.ptrace_scope = ReadNumber(settings + "/kernel/yama/ptrace_scope");
  return facts;
}

void ProbeKernel(KernelFacts& facts) {
  facts.tried = true;
  facts.socket_policy = broker::TrySocketPolicy();
  auto diag = broker::InetDiag::Open();
  if (!diag) return;
  const auto means = broker::ProbeAbortMeans(*diag);
  if (!means) return;
  facts.destroy = means->destroy;
  facts.disconnect = means->disconnect;
}

Findings KernelFindings(const KernelFacts& facts) {
  Findings findings;
  JudgeTransform("ESP for IPv4 (esp4)", "CONFIG_INET_ESP", facts.esp4, true, findings);
  if (facts.ipv6) {
    JudgeTransform("ESP for IPv6 (esp6)", "CONFIG_INET6_ESP", facts.esp6, true, findings);
  } else {
    findings.push_back(Note("no IPv6 here", "nothing, where no rule is for it"));
  }
  JudgeTransform("AH for IPv4 (ah4)", "CONFIG_INET_AH", facts.ah4, false, findings);
  if (facts.ipv6) {
    JudgeTransform("AH for IPv6 (ah6)", "CONFIG_INET6_AH", facts.ah6, false, findings);
  }
  JudgeSocketPolicies(facts, findings);
  JudgeBreaking(facts, findings);
  JudgeSettings(facts, findings);
  findings.push_back(
      facts.cgroup2
          ? Ok("cgroup v2 is mounted")
          : Note("no cgroup v2: programs cannot be fenced in (the shim and the policies of sockets "
                 "do without)",
                 "mount it at /sys/fs/cgroup where the fence is wanted"));
  return findings;
}

}  // namespace latchkey::tool
