#include "tools/latchkeyd/kernel/datagram_maps.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/real_kernel.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

using Need = DatagramRegion::Need;

constexpr uint32_t kMask = 0x7fff0000;
constexpr uint32_t kTag = 0x00070000;
constexpr uint32_t kOther = 0x00090000;

// A BPF file system of our own, at `base`, that nobody else sees.
struct Pins {
  TestNetns netns;
  std::string root = std::string(getenv("TEST_TMPDIR")) + "/bpf";
  std::string base = root + "/latchkey";

  Pins() {
    mkdir(root.c_str(), 0700);
    static const bool apart = unshare(CLONE_NEWNS) == 0 &&
                              mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    REQUIRE(apart);
    REQUIRE(mount("bpf", root.c_str(), "bpf", 0, "mode=0700") == 0);
  }
  ~Pins() { umount2(root.c_str(), MNT_DETACH); }

  std::vector<std::string> Folders() const { return List(base); }
  static std::vector<std::string> List(const std::string& folder) {
    std::vector<std::string> names;
    DIR* all = opendir(folder.c_str());
    if (all == nullptr) return names;
    while (const dirent* each = readdir(all)) {
      if (each->d_name[0] != '.') names.emplace_back(each->d_name);
    }
    closedir(all);
    std::ranges::sort(names);
    return names;
  }
};

DatagramRegion Region(const std::string& prefix, Need need) {
  return {Prefix::Parse(prefix).value(), 0, need};
}

DatagramAdmission Admission(const TestUdp& socket, uint32_t tag) {
  return {socket.cookie(), {Address::Parse("127.0.0.1").value(), 0}, tag};
}

TEST_CASE("The next broker finds the maps, and changes what its predecessor's sockets take in") {
  const Pins pins;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  {
    DatagramFilter filter({kMask, pins.base});
    REQUIRE(filter.Complaint() == "");
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    REQUIRE(filter.Admit(Admission(us, kTag)));
    peer.Send(us, "127.0.0.1", "clear");
  }
  REQUIRE(pins.Folders().size() == 1);
  CHECK(Pins::List(pins.base + "/" + pins.Folders()[0]).size() == 8);
  peer.Send(us, "127.0.0.1", "between", kTag);
  CHECK(us.Take() == "between");
  DatagramFilter filter({kMask, pins.base});
  REQUIRE(filter.Complaint() == "");
  CHECK(filter.Held() == std::vector<uint64_t>{us.cookie()});
  CHECK(filter.Dropped(us.cookie()) == 1);
  peer.Send(us, "127.0.0.1", "inherited", kTag);
  CHECK(us.Take() == "inherited");
  SECTION("what it does not admit anew ends with the first regions") {
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "-");
  }
  SECTION("what it admits before that stays") {
    REQUIRE(filter.Admit(Admission(us, kTag)));
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "x");
    // And later regions end nothing.
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "x");
  }
  SECTION("nor does a tag that is to mean another SA go on meaning the old one") {
    filter.DropInherited(kOther);
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "x");
    filter.DropInherited(kTag);
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "-");
  }
  SECTION("regions of the old ones do not shine through") {
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("127.0.0.0/8", Need::kPass)}));
    peer.Send(us, "127.0.0.1", "x");
    CHECK(us.Take() == "x");
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {}));
    peer.Send(us, "127.0.0.1", "x");
    CHECK(us.Take() == "-");
  }
  SECTION("and it forgets them") {
    filter.Forget(us.cookie());
    CHECK(filter.Held().empty());
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "-");
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    peer.Send(us, "127.0.0.1", "x", kTag);
    CHECK(us.Take() == "-");
  }
  SECTION("with the mask that it is told") {
    DatagramFilter narrow({kTag, pins.base});
    REQUIRE(narrow.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kTag)}));
    REQUIRE(narrow.Admit(Admission(us, kTag)));
    peer.Send(us, "127.0.0.1", "x", kTag | 0x00100000);
    CHECK(us.Take() == "x");
  }
}

TEST_CASE("Of sockets that were closed meanwhile the next broker forgets all") {
  const Pins pins;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  uint64_t gone = 0;
  {
    const TestUdp closed("0.0.0.0");
    gone = closed.cookie();
    DatagramFilter filter({kMask, pins.base});
    for (const TestUdp* each : {&us, &closed}) {
      REQUIRE(filter.Filter(each->fd(), each->cookie(), {}));
      peer.Send(*each, "127.0.0.1", "x");
    }
    REQUIRE(filter.Dropped(gone) == 1);
  }
  const Result<std::unique_ptr<RealKernel>> kernel = RealKernel::Open({}, {kMask, pins.base});
  REQUIRE(kernel);
  CHECK((*kernel)->DroppedDatagrams(gone) == 0);
  CHECK((*kernel)->DroppedDatagrams(us.cookie()) == 1);
}

TEST_CASE("Where nothing is held, nothing stays pinned") {
  const Pins pins;
  {
    const DatagramFilter filter({kMask, pins.base});
    CHECK(pins.Folders().size() == 1);
  }
  CHECK(pins.Folders().empty());
}

TEST_CASE("Another network namespace has maps of its own") {
  const Pins pins;
  const TestUdp us("0.0.0.0");
  DatagramFilter filter({kMask, pins.base});
  REQUIRE(filter.Filter(us.fd(), us.cookie(), {}));
  const TestNetns other;
  const DatagramFilter apart({kMask, pins.base});
  CHECK(apart.Complaint() == "");
  CHECK(apart.Held().empty());
  CHECK(pins.Folders().size() == 2);
}

TEST_CASE("Maps that are not as ours are not used") {
  const Pins pins;
  const TestUdp us("0.0.0.0");
  std::string folder;
  {
    DatagramFilter filter({kMask, pins.base});
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {}));
    folder = pins.base + "/" + pins.Folders().at(0);
  }
  const std::string path = folder + "/admitted";
  REQUIRE(unlink(path.c_str()) == 0);
  SECTION("one is missing") {}
  SECTION("of another size") {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
    const UniqueFd map(bpf_map_create(BPF_MAP_TYPE_HASH, "admitted", 32, 4, 1, &options));
    REQUIRE(map);
    REQUIRE(bpf_obj_pin(map.get(), path.c_str()) == 0);
  }
  SECTION("of another type") {
    const UniqueFd map(bpf_map_create(BPF_MAP_TYPE_LRU_HASH, "admitted", 32, 4, 262'144, nullptr));
    REQUIRE(map);
    REQUIRE(bpf_obj_pin(map.get(), path.c_str()) == 0);
  }
  DatagramFilter filter({kMask, pins.base});
  CHECK(filter.Complaint() == "");
  CHECK(filter.Held().empty());
  CHECK(Pins::List(folder).size() == 8);
  // A socket whose maps are lost keeps its filter, and cannot be had.
  const Result<void> done = filter.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kPass)});
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kUnsupported);
}

TEST_CASE("Where maps cannot be pinned, filters work all the same, and it is said") {
  const Pins pins;
  std::string base = pins.base;
  SECTION("no BPF file system") { base = std::string(getenv("TEST_TMPDIR")) + "/plain"; }
  SECTION("others may write there") {
    REQUIRE(mkdir(base.c_str(), 0700) == 0);
    REQUIRE(chmod(base.c_str(), 0777) == 0);
  }
  SECTION("not ours") {
    REQUIRE(mkdir(base.c_str(), 0700) == 0);
    REQUIRE(chown(base.c_str(), 65534, 65534) == 0);
  }
  DatagramFilter filter({kMask, base});
  CHECK(filter.Complaint() != "");
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  CHECK(filter.Filter(us.fd(), us.cookie(), {Region("127.0.0.0/8", Need::kPass)}));
  peer.Send(us, "127.0.0.1", "x");
  CHECK(us.Take() == "x");
}

}  // namespace
}  // namespace latchkey::broker
