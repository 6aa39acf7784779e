#include "tools/latchkeyd/latch/fake_kernel.h"

#include <algorithm>

namespace latchkey::broker {

SocketAddress At(const std::string& address, uint16_t port) {
  return SocketAddress{Address::Parse(address).value(), port};
}

int FakeKernel::AddSocket(SocketAddress local, SocketAddress remote, bool v6, uint8_t state) {
  const int fd = next_fd++;
  Socket socket;
  socket.facts.cookie = static_cast<uint64_t>(fd) * 1000;
  socket.facts.inode = static_cast<uint64_t>(fd) * 7;
  socket.facts.inet = true;
  socket.facts.v6_socket = v6;
  socket.facts.stream_tcp = true;
  socket.facts.own_netns = true;
  socket.facts.tcp_state = state;
  socket.facts.local = local;
  socket.facts.remote = remote;
  sockets[fd] = socket;
  return fd;
}

int FakeKernel::AddUdp(bool v6) {
  const int fd = AddSocket({Address::AnyOf(v6 ? Family::kV6 : Family::kV4), 0}, {}, v6);
  sockets.at(fd).facts.stream_tcp = false;
  sockets.at(fd).facts.datagram_udp = true;
  return fd;
}

void FakeKernel::ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                                  uint32_t scope) {
  Socket& socket = sockets.at(fd);
  socket.steps.push_back(scope == 0 ? "connect" : "connect%" + std::to_string(scope));
  socket.steps.emplace_back("drain");
  if (remote.address.ToString() == unreachable) return;
  socket.facts.remote = remote;
  socket.facts.tcp_state = 1;
  socket.facts.local.address = *SourceAddress(remote.address, 0);
  if (facts.local.port == 0) socket.facts.local.port = static_cast<uint16_t>(50'000 + fd);
}

std::vector<Sa> FakeKernel::AddPair(uint32_t reqid, const std::string& remote, uint16_t key_bits) {
  const Address peer = Address::Parse(remote).value();
  const Address us = Address::Parse(peer.family == Family::kV4 ? "10.9.0.1" : "fd00::1").value();
  std::vector<Sa> made;
  for (const bool inbound : {false, true}) {
    Sa sa;
    sa.key = SaKey{inbound ? us : peer, next_spi++, SaProtocol::kEsp};
    sa.source = inbound ? peer : us;
    sa.reqid = reqid;
    sa.protection =
        Protection{SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", key_bits, true, false};
    sad.push_back(sa);
    made.push_back(sa);
  }
  return made;
}

void FakeKernel::Tunnel(uint32_t reqid, const std::string& inside, bool bare) {
  const Prefix ours = Prefix::Parse("192.168.1.1").value();
  const Prefix theirs = Prefix::Parse(inside).value();
  for (Sa& sa : sad) {
    if (sa.reqid != reqid) continue;
    const bool inbound = IsLocalAddress(sa.key.destination);
    sa.protection.mode = Mode::kTunnel;
    if (bare) continue;
    sa.selector.family = Family::kV4;
    sa.selector.source = inbound ? theirs : ours;
    sa.selector.destination = inbound ? ours : theirs;
  }
}

void FakeKernel::RemoveSas(uint32_t reqid) {
  std::erase_if(sad, [&](const Sa& sa) { return sa.reqid == reqid; });
}

bool FakeKernel::HasGuard(const Guard& guard) const {
  return std::ranges::find(guards, guard) != guards.end();
}

Result<SocketFacts> FakeKernel::Inspect(int fd) {
  auto it = sockets.find(fd);
  if (it == sockets.end()) return Fail(Reason::kBadRequest, "inspect socket", "no socket");
  return it->second.facts;
}

Result<void> FakeKernel::SetPolicy(int fd, const SocketFacts&, const SocketPolicy& policy) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "set policy", "injected");
  sockets.at(fd).policy = policy;
  sockets.at(fd).steps.emplace_back("policy");
  return {};
}

Result<void> FakeKernel::SetMark(int fd, const SocketFacts&, uint32_t value, uint32_t mask) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "set mark", "injected");
  uint32_t& mark = sockets.at(fd).facts.mark;
  mark = (mark & ~mask) | (value & mask);
  return {};
}

Result<void> FakeKernel::AwaitArrivals() {
  if (Faulty()) return Fail(Reason::kKernelRefused, "await packets", "injected");
  ++arrivals;
  on_arrivals();
  return {};
}

Result<std::vector<Sa>> FakeKernel::DumpSad() {
  if (blind || Faulty()) return Fail(Reason::kKernelRefused, "dump SAD", "injected");
  return sad;
}

Result<std::vector<SpdEntry>> FakeKernel::DumpSpd() {
  if (blind) return Fail(Reason::kKernelRefused, "dump SPD", "injected");
  std::vector<SpdEntry> all = spd;
  for (const Guard& guard : guards) {
    SpdEntry entry;
    entry.selector = guard.selector;
    entry.dir = guard.out ? 1 : 0;
    entry.priority = guard.priority;
    entry.block = guard.action == Guard::Action::kBlock;
    entry.mark = guard.mark;
    entry.mark_mask = guard.mark | guard.unset;
    entry.bare = !Requires(guard.action);
    if (Requires(guard.action)) {
      entry.protocol = guard.action == Guard::Action::kAh ? SaProtocol::kAh : SaProtocol::kEsp;
      entry.mode = guard.mode;
      entry.tunnel_source = guard.out ? guard.ends.local : guard.ends.remote;
      entry.tunnel_destination = guard.out ? guard.ends.remote : guard.ends.local;
      entry.reqid = guard.reqid;
    }
    all.push_back(entry);
  }
  return all;
}

Result<void> FakeKernel::AddGuard(const Guard& guard) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "add guard", "injected");
  for (const Guard& other : guards) {
    if (SamePlace(other, guard)) {
      return Fail(Reason::kConflictSpd, "add guard", "an equal selector is there");
    }
  }
  guards.push_back(guard);
  return {};
}

Result<void> FakeKernel::DeleteGuard(const Guard& guard) {
  if (std::erase_if(guards, [&](const Guard& other) { return SamePlace(other, guard); }) > 0) {
    CountUnproved();
  }
  return {};
}

Result<void> FakeKernel::RenewGuard(const Guard& from, const Guard& to) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "renew guard", "injected");
  auto it = std::ranges::find(guards, from);
  if (it == guards.end()) return Fail(Reason::kKernelRefused, "renew guard", "not there");
  *it = to;
  renewed.push_back(to);
  return {};
}

Result<void> FakeKernel::BanFragments(const std::vector<FragmentBan>& wanted) {
  if (!bans_possible) return Fail(Reason::kUnsupported, "ban fragments", "no nf_tables");
  bans = wanted;
  bans_stand = true;
  return {};
}

Result<void> FakeKernel::FilterDatagrams(int fd, const SocketFacts& facts,
                                         const std::vector<DatagramRegion>& regions) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "filter datagrams", "injected");
  if (!filters_possible) return Fail(Reason::kUnsupported, "filter datagrams", "no eBPF");
  sockets.at(fd).steps.emplace_back("filter");
  filters[facts.cookie] = regions;
  return {};
}

Result<void> FakeKernel::Admit(const DatagramAdmission& admission) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "admit datagrams", "injected");
  admissions.insert(admission);
  CountUnproved();
  ++admitted;
  return {};
}

void FakeKernel::CountUnproved() {
  unproved += static_cast<int>(std::ranges::count_if(admissions, [this](const auto& each) {
    return std::ranges::none_of(
        guards, [&each](const Guard& guard) { return !guard.out && guard.mark == each.tag; });
  }));
}

// What the SPD makes of a datagram that comes in, as far as our own entries go.
bool FakeKernel::PassesSpd(const SocketAddress& remote, const Sa* sa, uint32_t tag) const {
  const bool v4 = remote.address.family == Family::kV4;
  const Address local =
      sa != nullptr ? sa->key.destination : Address::Parse(v4 ? "10.9.0.1" : "fd00::1").value();
  const Guard* first = nullptr;
  for (const Guard& guard : guards) {
    if (guard.out || (tag & (guard.mark | guard.unset)) != guard.mark) continue;
    if (!guard.selector.Matches(kProtocolUdp, remote, {local, 0})) continue;
    if (first == nullptr || guard.priority < first->priority) first = &guard;
  }
  if (first == nullptr || first->action == Guard::Action::kAllow) return true;
  return Requires(first->action) && sa != nullptr &&
         RequireAction(sa->key.protocol) == first->action && sa->protection.mode == first->mode &&
         (first->reqid == 0 || first->reqid == sa->reqid);
}

// As KernelPort::FilterDatagrams() says.
bool FakeKernel::TakesIn(int fd, const SocketAddress& remote, const Sa* sa,
                         std::optional<uint32_t> marked) const {
  const uint64_t cookie = sockets.at(fd).facts.cookie;
  uint32_t tag = 0;
  for (const Sa& each : sad) {
    if (sa != nullptr && each.key == sa->key) tag = each.set_mark & each.set_mask & 0x7fff0000;
  }
  if (marked) tag = *marked;
  if (!PassesSpd(remote, sa, tag)) return false;
  const auto filter = filters.find(cookie);
  if (filter == filters.end()) return true;
  if (tag != 0 && (admissions.contains({cookie, remote, tag}) ||
                   admissions.contains({cookie, {remote.address, 0}, tag}))) {
    return true;
  }
  const DatagramRegion* found = nullptr;
  for (const DatagramRegion& region : filter->second) {
    if (!region.remote.Contains(remote.address)) continue;
    if (region.port != 0 && region.port != remote.port) continue;
    const auto rank = [](const DatagramRegion& each) {
      return std::pair(each.port != 0, each.remote.length);
    };
    if (found == nullptr || rank(region) > rank(*found)) found = &region;
  }
  return found != nullptr && found->need == DatagramRegion::Need::kPass &&
         std::ranges::none_of(found->but,
                              [&](const PortRange& each) { return each.Contains(remote.port); });
}

void FakeKernel::ForgetDatagrams(uint64_t cookie) {
  filters[cookie].clear();
  std::erase_if(admissions, [&](const auto& each) { return each.cookie == cookie; });
}

Result<void> FakeKernel::TagSa(const Sa& sa, uint32_t tag, uint32_t mask) {
  if (Faulty()) return Fail(Reason::kKernelRefused, "tag SA", "injected");
  for (Sa& each : sad) {
    if (each.key != sa.key) continue;
    each.set_mark = (each.set_mark & ~mask) | tag;
    each.set_mask |= mask;
    return {};
  }
  return Fail(Reason::kKernelRefused, "tag SA", "not there");
}

bool FakeKernel::IsLocalAddress(const Address& address) {
  return std::ranges::any_of(
      locals, [&](const std::string& local) { return Address::Parse(local) == address; });
}

std::optional<int> FakeKernel::Borrow(const SocketHint& hint) {
  for (const auto& [fd, socket] : sockets) {
    if (socket.facts.cookie == hint.cookie && socket.held) {
      ++borrowed;
      return fd;
    }
  }
  return std::nullopt;
}

void FakeKernel::GiveBack(int) { --borrowed; }

Result<void> FakeKernel::Abort(const SocketHint& hint, int fd, const Flow&) {
  if (fd < 0) return Fail(Reason::kKernelRefused, "abort", "out of reach");
  Socket& socket = sockets.at(fd);
  if (socket.facts.cookie != hint.cookie) return Fail(Reason::kKernelRefused, "abort", "other");
  socket.aborted = true;
  socket.live = false;
  socket.facts.tcp_state = 7;
  return {};
}

Result<std::vector<LiveSocket>> FakeKernel::LiveSockets() {
  if (no_list) return Fail(Reason::kKernelRefused, "list connections", "injected");
  std::vector<LiveSocket> live;
  for (const auto& [fd, socket] : sockets) {
    const bool datagrams = socket.facts.datagram_udp;
    const bool bound = datagrams && socket.facts.local.port != 0;
    if (!socket.live || (socket.facts.tcp_state == 7 && !bound)) continue;
    live.push_back(LiveSocket{socket.facts.cookie, socket.facts.tcp_state, socket.queued,
                              socket.facts.local, socket.facts.remote,
                              socket.held ? socket.facts.inode : 0, socket.facts.mark,
                              datagrams ? kProtocolUdp : kProtocolTcp});
  }
  return live;
}

Result<std::unordered_set<uint64_t>> FakeKernel::HeldSocketInodes() {
  std::unordered_set<uint64_t> inodes;
  for (const auto& [fd, socket] : sockets) {
    if (socket.held) inodes.insert(socket.facts.inode);
  }
  return inodes;
}

std::optional<Address> FakeKernel::SourceAddress(const Address& remote, uint32_t) {
  if (remote.family == Family::kV6) return Address::Parse("fd00::1");
  const bool inside = Prefix::Parse("192.168.0.0/16")->Contains(remote);
  return Address::Parse(inside ? "192.168.1.1" : "10.9.0.1");
}

Result<NoXfrm> FakeKernel::FindNoXfrm() {
  ++settings_read;
  if (no_settings) return Fail(Reason::kKernelRefused, "read settings", "injected");
  return no_xfrm;
}

std::optional<Route> FakeKernel::RouteTo(int, const Address&, const Address& remote, uint32_t) {
  ++routes_looked_up;
  const auto found = devices.find(remote.ToString());
  if (found == devices.end()) {
    return IsLocalAddress(remote) ? Route{"lo", 1, /*stays=*/true} : Route{"eth0", 2};
  }
  if (found->second.empty()) return std::nullopt;
  return Route{found->second, 3};
}

Result<void> FakeKernel::BindAny(int fd, const SocketFacts&) {
  sockets.at(fd).facts.local.port = static_cast<uint16_t>(40'000 + fd);
  return {};
}

}  // namespace latchkey::broker
