// A kernel for tests: sockets, SAD and SPD as plain data, and a record of what was done to them.
#ifndef TOOLS_LATCHKEYD_LATCH_FAKE_KERNEL_H_
#define TOOLS_LATCHKEYD_LATCH_FAKE_KERNEL_H_

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

class FakeKernel : public KernelPort {
 public:
  struct Socket {
    SocketFacts facts;
    std::optional<SocketPolicy> policy;
    bool aborted = false;
    bool live = true;  // in the kernel's tables
    bool held = true;  // by a process
    uint32_t queued = 0;
    bool tells_marks = false;
    // UDP: what was done, in order: "push", "policy", "connect", "drain".
    std::vector<std::string> steps;
  };

  Result<SocketFacts> Inspect(int fd) override;
  Result<void> SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) override;
  Result<void> SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) override;
  Result<void> AwaitArrivals() override;
  Result<void> TellMarks(int fd, bool on) override {
    sockets.at(fd).tells_marks = on;
    return {};
  }
  Result<std::vector<Sa>> DumpSad() override;
  Result<std::vector<SpdEntry>> DumpSpd() override;
  Result<void> AddGuard(const Guard& guard) override;
  Result<void> DeleteGuard(const Guard& guard) override;
  Result<void> RenewGuard(const Guard& from, const Guard& to) override;
  void HoldPackets(bool on) override { holding = on; }
  void DropLarval(const Address& local, const Address&, SaProtocol, uint32_t,
                  uint32_t mark) override {
    larvals_dropped.emplace_back(local, mark);
  }
  void DropLarval(const Sa& larval) override {
    std::erase(sad, larval);
    guards_at_drop = guards.size();
  }
  Result<void> BanFragments(const std::vector<FragmentBan>& wanted) override;
  bool FragmentsBanned() override { return bans_stand; }
  bool IsLocalAddress(const Address& address) override;
  std::optional<int> Borrow(const SocketHint& hint) override;
  void GiveBack(int fd) override;
  Result<void> Abort(const SocketHint& hint, int fd, const Flow& flow) override;
  Result<std::vector<LiveSocket>> LiveSockets() override;
  Result<std::unordered_set<uint64_t>> HeldSocketInodes() override;
  std::optional<Address> SourceAddress(const Address& remote, uint32_t scope) override;
  bool SharesPort(int /*fd*/) override { return shares_port; }
  bool IsBroadcast(const Address& remote) override {
    return remote == Address::Parse("10.9.0.255");
  }
  Result<NoXfrm> FindNoXfrm() override;
  std::optional<Route> RouteTo(int fd, const Address& local, const Address& remote,
                               uint32_t mark) override;
  Result<void> BindAny(int fd, const SocketFacts& facts) override;
  void PushOut(int fd) override { sockets.at(fd).steps.emplace_back("push"); }
  void ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                        uint32_t scope) override;
  void Drain(int fd) override { sockets.at(fd).steps.emplace_back("drain"); }
  Result<void> FilterDatagrams(int fd, const SocketFacts& facts,
                               const std::vector<DatagramRegion>& regions) override;
  Result<void> Admit(const DatagramAdmission& admission) override;
  void Dismiss(const DatagramAdmission& admission) override { admissions.erase(admission); }
  void ForgetDatagrams(uint64_t cookie) override;
  uint64_t DroppedDatagrams(uint64_t) override { return dropped; }
  Result<void> TagSa(const Sa& sa, uint32_t tag, uint32_t mask) override;
  int64_t NowMs() override { return now; }
  uint64_t WallSeconds() override { return 1'700'000'000; }

  // Makes a TCP socket and returns its descriptor.
  int AddSocket(SocketAddress local, SocketAddress remote, bool v6 = false, uint8_t state = 7);
  // Makes a UDP socket, not connected.
  int AddUdp(bool v6 = false);
  // Would the SPD and the filter of the socket let a datagram in that came from `remote` under an
  // SA, or in clear (null)? `marked`: whatever it came under, a firewall marks it so.
  bool TakesIn(int fd, const SocketAddress& remote, const Sa* sa = nullptr,
               std::optional<uint32_t> marked = std::nullopt) const;
  // Makes both SAs of a pair between 10.9.0.1 (us) and `remote`; returns them, outgoing first.
  std::vector<Sa> AddPair(uint32_t reqid, const std::string& remote, uint16_t key_bits = 256);
  // Turns the SAs of a reqid into a tunnel between these, of packets between 192.168.1.1 (us) and
  // `inside`. `bare`: as charon makes it, whose selector names nothing.
  void Tunnel(uint32_t reqid, const std::string& inside, bool bare = false);
  void RemoveSas(uint32_t reqid);
  bool HasGuard(const Guard& guard) const;

  std::map<int, Socket> sockets;
  std::vector<Sa> sad;
  std::vector<SpdEntry> spd;  // somebody else's
  std::vector<Guard> guards;
  std::vector<FragmentBan> bans;
  std::map<uint64_t, std::vector<DatagramRegion>> filters;  // by cookie
  std::set<DatagramAdmission> admissions;
  int admitted = 0;  // ever
  int unproved = 0;  // admissions that stood for a moment while no proof of their tag did
  uint64_t dropped = 0;
  // Local address and mark.
  std::vector<std::pair<Address, uint32_t>> larvals_dropped;
  size_t guards_at_drop = 0;                  // when one that the SAD showed was dropped
  std::vector<Guard> renewed;                 // in order
  int arrivals = 0;                           // how often they were awaited
  std::function<void()> on_arrivals = [] {};  // meanwhile
  bool filters_possible = true;
  bool bans_possible = true;
  bool bans_stand = true;
  std::vector<std::string> locals = {"10.9.0.1", "fd00::1", "192.168.1.1", "127.0.0.1", "::1"};
  int64_t now = 1000;
  bool holding = false;
  int borrowed = 0;  // descriptors lent and not given back
  int next_fd = 10;
  uint32_t next_spi = 0x1000;
  // Fault injection: the n-th call that changes the kernel fails (1 = the next one).
  int fail_after = 0;
  bool blind = false;  // dumps fail
  bool shares_port = true;
  bool no_list = false;  // so do lists of connections
  NoXfrm no_xfrm;
  bool no_settings = false;  // reading it fails
  int settings_read = 0;     // how often it was
  // Where packets to these addresses leave; to others, by "eth0". Empty: nobody knows.
  std::map<std::string, std::string> devices;
  std::string unreachable;  // no UDP socket can be connected there
  int routes_looked_up = 0;

 private:
  void CountUnproved();
  bool PassesSpd(const SocketAddress& remote, const Sa* sa, uint32_t tag) const;
  bool Faulty() {
    if (fail_after == 0) return false;
    --fail_after;
    return fail_after == 0;
  }
};

SocketAddress At(const std::string& address, uint16_t port);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FAKE_KERNEL_H_
