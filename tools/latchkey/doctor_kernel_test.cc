#include "tools/latchkey/doctor_kernel.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

namespace latchkey::tool {
namespace {

// A /proc and a cgroup folder of the test's own.
class Places {
 public:
  Places() {
    const char* base = std::getenv("TEST_TMPDIR");
    root_ = std::string(base != nullptr ? base : "/tmp") + "/doctorXXXXXX";
    REQUIRE(mkdtemp(root_.data()) != nullptr);
    places.proc = root_ + "/proc";
    places.cgroup = root_ + "/cgroup";
    Loader("false");
  }
  ~Places() { std::filesystem::remove_all(root_); }
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;

  void Write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  // A module loader that answers by `condition`, a shell command that has the module's name in $4.
  void Loader(const std::string& condition) const {
    Write("/loader", "#!/bin/sh\n" + condition + "\n");
    REQUIRE(chmod((root_ + "/loader").c_str(), 0755) == 0);
    Write("/proc/sys/kernel/modprobe", root_ + "/loader\n");
  }

  KernelPlaces places;

 private:
  std::string root_;
};

KernelFacts Good() {
  KernelFacts facts;
  facts.xfrm_user = facts.esp4 = facts.esp6 = facts.ah4 = facts.ah6 = Presence::kThere;
  facts.ipv6 = facts.cgroup2 = facts.tried = facts.destroy = facts.disconnect = true;
  facts.larval_drop = 0;
  facts.acq_expires = 30;
  facts.syncookies = 1;
  facts.ptrace_scope = 1;
  return facts;
}

std::string TextOf(const KernelFacts& facts) { return FindingsText(KernelFindings(facts)); }

TEST_CASE("What is loaded, built in, loadable and missing is told apart") {
  const Places at;
  at.Write("/proc/modules", "esp4 45056 2 - Live 0x0000000000000000\n");
  at.Write("/proc/kallsyms",
           "0000000000000000 t esp_init_state\t[esp4]\n0000000000000000 t esp6_init_state\n");
  at.Loader("[ \"$1 $2 $3\" = '-n -q --' ] && [ \"$4\" = ah4 ]");
  KernelFacts facts = ReadKernel(at.places);
  CHECK(facts.esp4 == Presence::kThere);
  CHECK(facts.esp6 == Presence::kThere);
  CHECK(facts.ah4 == Presence::kLoadable);
  CHECK(facts.ah6 == Presence::kMissing);
  // Without lists of either kind there is no telling.
  const Places bare;
  facts = ReadKernel(bare.places);
  CHECK(facts.esp4 == Presence::kUnknown);
  CHECK(facts.xfrm_user == Presence::kUnknown);
}

TEST_CASE("xfrm_user is there when the kernel has its netlink socket") {
  const Places at;
  const std::string head = "sk               Eth Pid        Groups   Rmem\n";
  at.Write("/proc/net/netlink", head + "00000000 0   0          00000000 0\n");
  CHECK(ReadKernel(at.places).xfrm_user == Presence::kMissing);
  // One of a program's is none.
  at.Write("/proc/net/netlink", head + "00000000 6   1234       00000000 0\n");
  at.Loader("[ \"$4\" = xfrm_user ]");
  CHECK(ReadKernel(at.places).xfrm_user == Presence::kLoadable);
  at.Write("/proc/net/netlink", head + "00000000 6   0          00000000 0\n");
  CHECK(ReadKernel(at.places).xfrm_user == Presence::kThere);
}

TEST_CASE("Settings are read where they are; what is no number is none") {
  const Places at;
  KernelFacts facts = ReadKernel(at.places);
  CHECK_FALSE(facts.larval_drop);
  CHECK_FALSE(facts.ptrace_scope);
  CHECK_FALSE(facts.ipv6);
  CHECK_FALSE(facts.cgroup2);
  at.Write("/proc/sys/net/core/xfrm_larval_drop", "1\n");
  at.Write("/proc/sys/net/core/xfrm_acq_expires", "165\n");
  at.Write("/proc/sys/net/ipv4/tcp_syncookies", "x\n");
  at.Write("/proc/sys/kernel/yama/ptrace_scope", "3\n");
  at.Write("/proc/net/if_inet6", "");
  at.Write("/cgroup/unified/cgroup.controllers", "");
  facts = ReadKernel(at.places);
  CHECK(facts.larval_drop == 1);
  CHECK(facts.acq_expires == 165);
  CHECK_FALSE(facts.syncookies);
  CHECK(facts.ptrace_scope == 3);
  CHECK(facts.ipv6);
  CHECK(facts.cgroup2);
}

TEST_CASE("A kernel in good order has nothing but ok") {
  const std::string text = TextOf(Good());
  CAPTURE(text);
  CHECK(text.find("BAD") == std::string::npos);
  CHECK(text.find("note") == std::string::npos);
  CHECK(text.starts_with("ok    the kernel has ESP for IPv4 (esp4)\n"));
}

TEST_CASE("Each fact that matters has its line") {
  struct Case {
    std::function<void(KernelFacts&)> change;
    std::string line;  // the beginning of one
  };
  const Case cases[] = {
      {[](KernelFacts& f) { f.esp4 = Presence::kMissing; },
       "BAD   the kernel has no ESP for IPv4 (esp4): no SA can be installed: run one with "
       "CONFIG_INET_ESP\n"},
      {[](KernelFacts& f) { f.esp6 = Presence::kMissing; }, "BAD   the kernel has no ESP for IPv6"},
      {[](KernelFacts& f) { f.esp4 = Presence::kLoadable; }, "ok    the kernel loads ESP for IPv4"},
      {[](KernelFacts& f) { f.esp4 = Presence::kUnknown; }, "note  whether the kernel has ESP"},
      {[](KernelFacts& f) { f.ah4 = Presence::kMissing; }, "note  the kernel has no AH for IPv4"},
      {[](KernelFacts& f) { f.ipv6 = false; }, "note  no IPv6 here: "},
      {[](KernelFacts& f) { f.xfrm_user = Presence::kMissing; },
       "BAD   the kernel has no xfrm_user: sockets take no policies: run one with"},
      {[](KernelFacts& f) { f.xfrm_user = Presence::kLoadable; }, "ok    xfrm_user can be loaded"},
      {[](KernelFacts& f) { f.xfrm_user = Presence::kUnknown; }, "note  whether the kernel has xf"},
      {[](KernelFacts& f) { f.socket_policy = EPERM; },
       "BAD   a socket takes no policy: Operation not permitted: run where CAP_NET_ADMIN"},
      {[](KernelFacts& f) { f.socket_policy = EINVAL; },
       "BAD   a socket takes no policy: Invalid argument: "},
      {[](KernelFacts& f) { f.tried = false; }, "note  not root: not tried whether sockets"},
      {[](KernelFacts& f) { f.destroy = false; },
       "ok    connections can be aborted through their programs' descriptors"},
      {[](KernelFacts& f) { f.destroy = f.disconnect = false; },
       "BAD   no connection can be aborted: "},
      {[](KernelFacts& f) { f.ptrace_scope = 3; }, "note  kernel.yama.ptrace_scope is 3: "},
      {[](KernelFacts& f) {
         f.ptrace_scope = 3;
         f.destroy = false;
       },
       "BAD   no connection can be aborted: "},
      {[](KernelFacts& f) { f.larval_drop = 1; }, "ok    net.core.xfrm_larval_drop is 1: "},
      {[](KernelFacts& f) { f.larval_drop.reset(); }, "note  net.core.xfrm_larval_drop is not to"},
      {[](KernelFacts& f) { f.acq_expires = 165; }, "note  net.core.xfrm_acq_expires is 165: "},
      {[](KernelFacts& f) { f.syncookies = 2; }, "note  net.ipv4.tcp_syncookies is 2: "},
      {[](KernelFacts& f) { f.cgroup2 = false; }, "note  no cgroup v2: "},
  };
  for (const Case& one : cases) {
    KernelFacts facts = Good();
    one.change(facts);
    const std::string text = "\n" + TextOf(facts);
    CAPTURE(one.line, text);
    CHECK(text.find("\n" + one.line) != std::string::npos);
    CHECK(AnyBad(KernelFindings(facts)) == one.line.starts_with("BAD"));
  }
}

TEST_CASE("A module that the broker will load is no fault") {
  KernelFacts facts = Good();
  facts.xfrm_user = Presence::kLoadable;
  facts.socket_policy = EINVAL;
  CHECK_FALSE(AnyBad(KernelFindings(facts)));
}

TEST_CASE("This kernel can be looked at, and is not changed") {
  KernelFacts facts = ReadKernel({});
  if (geteuid() == 0) ProbeKernel(facts);
  const std::string text = TextOf(facts);
  CHECK_FALSE(text.empty());
  if (facts.tried) CHECK(facts.disconnect);
}

}  // namespace
}  // namespace latchkey::tool
