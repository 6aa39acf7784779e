// What of a fence a broker leaves, and the next one finds.

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/cgroups.h"
#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/fence.h"
#include "tools/latchkeyd/kernel/fence_test_program.h"
#include "tools/latchkeyd/kernel/test_device.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

using wire::Settle;

constexpr uint64_t kFence = 0x1234567890;

// A BPF file system of our own that nobody else sees.
struct Pins {
  TestNetns netns;
  std::string root = std::string(getenv("TEST_TMPDIR")) + "/bpf";
  std::string base = root + "/latchkey";
  std::unique_ptr<wire::Page> page = std::make_unique<wire::Page>();

  Pins() {
    page->otherwise = Settle::kProtect;
    mkdir(root.c_str(), 0700);
    static const bool apart = unshare(CLONE_NEWNS) == 0 &&
                              mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    REQUIRE(apart);
    REQUIRE(mount("bpf", root.c_str(), "bpf", 0, "mode=0700") == 0);
  }
  ~Pins() { umount2(root.c_str(), MNT_DETACH); }
  std::string Folder() const {
    struct stat netns_status {};
    REQUIRE(stat("/proc/thread-self/ns/net", &netns_status) == 0);
    return base + "/fence-" + std::to_string(LATCHKEY_FENCE_LAYOUT) + "-" +
           std::to_string(LATCHKEY_LAYOUT) + "-" + std::to_string(netns_status.st_ino);
  }
  bool Pinned() const { return access(Folder().c_str(), F_OK) == 0; }
};

int Connect(const UniqueFd& fd, uint16_t port) {
  REQUIRE(fd);
  return ConnectTo(fd.get(), AF_INET, "127.0.0.1", port);
}

TEST_CASE_METHOD(Pins, "before there is a fence no decision is noted") {
  const UniqueFd socket = TcpSocket(AF_INET);
  // Whether one is noted that `fence` is told of now.
  const auto notes = [&](Fence& fence) {
    REQUIRE(fence.Decide(socket.get(), {FenceDecision::Kind::kPassive, {}}));
    const UniqueFd decided(bpf_obj_get((Folder() + "/decided").c_str()));
    REQUIRE(decided);
    const int fd = socket.get();
    latchkey_decision noted{};
    const bool found = bpf_map_lookup_elem(decided.get(), &fd, &noted) == 0;
    fence.Forget(fd);
    CHECK(bpf_map_lookup_elem(decided.get(), &fd, &noted) != 0);
    return found;
  };
  FencedProgram program;
  std::optional<Fence> fence(base);
  REQUIRE(fence->Lacking().empty());
  CHECK_FALSE(notes(*fence));
  REQUIRE(fence->Enclose(kFence, program.pid()));
  CHECK(notes(*fence));
  // One of a broker before counts. One that is gone too: a socket of it may be left.
  fence.emplace(base);
  CHECK(notes(*fence));
  program.End();
  REQUIRE(fence->Release(kFence));
  CHECK(notes(*fence));
}

TEST_CASE_METHOD(Pins,
                 "a fence stands while there is no broker, and the next one goes on with it") {
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  FencedProgram program;
  std::optional<Fence> fence(base);
  REQUIRE(fence->Lacking().empty());
  REQUIRE(fence->Complaint().empty());
  REQUIRE(fence->Enclose(kFence, program.pid()));
  REQUIRE(fence->SetRules(kFence, *page, {}));
  const UniqueFd decided = program.Socket(AF_INET, SOCK_STREAM);
  REQUIRE(fence->Decide(decided.get(),
                        {FenceDecision::Kind::kFlow, {Address::Parse("127.0.0.1").value(), port}}));
  CHECK(Connect(program.Socket(AF_INET, SOCK_STREAM), port) == EPERM);
  CHECK(fence->TakeStops().size() == 1);

  fence.reset();
  CHECK(Pinned());
  CHECK(Connect(program.Socket(AF_INET, SOCK_STREAM), port) == EPERM);
  CHECK(Connect(decided, port) == 0);

  fence.emplace(base);
  CHECK(fence->Fences() == std::vector<uint64_t>{kFence});
  CHECK(fence->TakeStops().empty());  // what was stopped before it is not news
  CHECK(Connect(program.Socket(AF_INET, SOCK_STREAM), port) == EPERM);
  CHECK(fence->TakeStops().size() == 1);
  const UniqueFd later = program.Socket(AF_INET, SOCK_STREAM);
  REQUIRE(fence->Decide(later.get(),
                        {FenceDecision::Kind::kFlow, {Address::Parse("127.0.0.1").value(), port}}));
  CHECK(Connect(later, port) == 0);
  page->otherwise = Settle::kBypass;
  REQUIRE(fence->SetRules(kFence, *page, {}));
  CHECK(Connect(program.Socket(AF_INET, SOCK_STREAM), port) == 0);

  CHECK_FALSE(fence->Release(kFence));
  program.End();
  CHECK(fence->Release(kFence));
  CHECK(fence->Fences().empty());
  fence.reset();
  CHECK_FALSE(Pinned());
}

TEST_CASE_METHOD(Pins, "what ended while there was no broker is taken away by the next") {
  std::optional<FencedProgram> program;
  program.emplace();
  std::optional<Fence> fence(base);
  REQUIRE(fence->Enclose(kFence, program->pid()));
  fence.reset();
  program.reset();
  fence.emplace(base);
  REQUIRE(fence->Fences() == std::vector<uint64_t>{kFence});
  CHECK(fence->Release(kFence));
  fence.reset();
  CHECK_FALSE(Pinned());
}

TEST_CASE_METHOD(Pins,
                 "a fence that knows no more what held sockets may send leaves it to the SPD") {
  const TestDevice device;
  FencedProgram program;
  std::optional<DatagramFilter> filter(std::in_place, DatagramOptions{});
  std::optional<Fence> fence(std::in_place, base, filter->RegionMaps());
  REQUIRE(fence->SetRules(kFence, *page, {}));
  REQUIRE(fence->Enclose(kFence, program.pid()));
  const UniqueFd socket = program.Socket(AF_INET, SOCK_DGRAM);
  const auto send_clear = [&] {
    sockaddr_storage name{};
    const SocketAddress there{Address::Parse("10.77.0.9").value(), 53};
    const socklen_t length = ToSockaddr(there, false, 0, &name);
    const auto* to = reinterpret_cast<const sockaddr*>(&name);
    return sendto(socket.get(), "clear", 5, 0, to, length) == 5 ? 0 : errno;
  };
  REQUIRE(fence->Decide(socket.get(), {FenceDecision::Kind::kHeld, {}}));
  CHECK(send_clear() == EPERM);
  // The next broker finds fences and filters.
  fence.emplace(base, filter->RegionMaps());
  REQUIRE(fence->SetRules(kFence, *page, {}));
  CHECK(send_clear() == EPERM);
  // This one has filters of its own.
  filter.emplace(DatagramOptions{});
  fence.emplace(base, filter->RegionMaps());
  REQUIRE(fence->SetRules(kFence, *page, {}));
  CHECK(send_clear() == 0);
  CHECK(device.Count("clear") == 1);
  program.End();
  CHECK(fence->Release(kFence));
}

TEST_CASE_METHOD(Pins, "without pins a fence stands too, for the program's life") {
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  FencedProgram program;
  std::optional<Fence> fence(std::string{});
  REQUIRE(fence->Enclose(kFence, program.pid()));
  fence.reset();
  CHECK_FALSE(Pinned());
  CHECK(Connect(program.Socket(AF_INET, SOCK_STREAM), port) == EPERM);
  // Nobody is left who would.
  std::ifstream file("/proc/" + std::to_string(program.pid()) + "/cgroup");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  program.End();
  CHECK(Cgroups::Open()->Remove(ReadCgroupPath(text).value()));
}

}  // namespace
}  // namespace latchkey::broker
