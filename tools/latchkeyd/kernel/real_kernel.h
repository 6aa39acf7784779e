// KernelPort over the running kernel: XFRM and sock_diag through netlink, socket options, /proc.
//
// It serves the network namespace it was opened in, by one thread. It needs CAP_NET_ADMIN, and what
// borrow.h says.
#ifndef TOOLS_LATCHKEYD_KERNEL_REAL_KERNEL_H_
#define TOOLS_LATCHKEYD_KERNEL_REAL_KERNEL_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tools/latchkeyd/kernel/abort_probe.h"
#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/fragment_ban.h"
#include "tools/latchkeyd/kernel/inet_diag.h"
#include "tools/latchkeyd/kernel/larval_hold.h"
#include "tools/latchkeyd/kernel/local_addresses.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"
#include "tools/latchkeyd/kernel/no_xfrm.h"
#include "tools/latchkeyd/kernel/prompt_close.h"
#include "tools/latchkeyd/kernel/route_finder.h"
#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

// How fragments in clear are kept out of tunnels.
struct FragmentOptions {
  std::string table = "latchkey";  // of nf_tables
  bool owned = false;              // the table goes with us
  bool dropped = false;            // the administrator's firewall drops them: nothing is to be done
};

class RealKernel : public KernelPort {
 public:
  // Loads xfrm_user where it must, joins the events, opens the sockets for requests and tries how a
  // connection can be ended. An error means that nothing can be latched on this system.
  // `hold_mark`: LarvalHold().
  static Result<std::unique_ptr<RealKernel>> Open(FragmentOptions fragments = {},
                                                  const DatagramOptions& datagrams = {},
                                                  std::string hold_mark = {});

  // For epoll: readable when ReadEvents() has something. Level-triggered: one call may leave some.
  int EventFd() const { return events_.fd(); }
  // Takes what has come, in order. Lost or unreadable events show as kOverrun, after which the
  // databases must be dumped again. An error: no event will come any more.
  Result<std::vector<KernelEvent>> ReadEvents();
  AbortMeans abort_means() const { return means_; }
  // Why there are no filters on datagrams, or why a later broker will not find them; else empty.
  std::string DatagramComplaint() const { return filter_.Complaint(); }
  std::map<std::string, int> RegionMaps() const { return filter_.RegionMaps(); }
  void KeepDatagramPins() { filter_.KeepPins(); }
  // Why packets cannot be held back (HoldPackets); else empty.
  const std::string& HoldComplaint() const { return larval_hold_.Complaint(); }
  // What is done before ConnectDatagrams(): a fence stops who was not decided, us too.
  void BeforeConnect(std::function<void(int fd, const SocketAddress& remote)> act) {
    before_connect_ = std::move(act);
  }

  Result<SocketFacts> Inspect(int fd) override;
  Result<void> SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) override;
  Result<void> SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) override;
  Result<void> AwaitArrivals() override { return AwaitPacketsOnTheWay(); }
  Result<void> TellMarks(int fd, bool on) override { return TellSocketMarks(fd, on); }
  Result<std::vector<Sa>> DumpSad() override;
  // Entries of the SPD, socket policies too (their dir is 3 or 4). Where the kernel's default
  // blocks (XFRM_MSG_GETDEFAULT), the last entry says so: any selector, the lowest priority there
  // is, index 0.
  Result<std::vector<SpdEntry>> DumpSpd() override;
  Result<void> AddGuard(const Guard& guard) override;
  Result<void> DeleteGuard(const Guard& guard) override;
  Result<void> RenewGuard(const Guard& from, const Guard& to) override;
  void HoldPackets(bool on) override { larval_hold_.Set(on); }
  void DropLarval(const Address& local, const Address& remote, SaProtocol protocol, uint32_t reqid,
                  uint32_t mark) override;
  void DropLarval(const Sa& larval) override;
  Result<void> BanFragments(const std::vector<FragmentBan>& bans) override;
  bool FragmentsBanned() override;
  bool IsLocalAddress(const Address& address) override;
  std::optional<int> Borrow(const SocketHint& hint) override;
  void GiveBack(int fd) override;
  Result<void> Abort(const SocketHint& hint, int fd, const Flow& flow) override;
  Result<std::vector<LiveSocket>> LiveSockets() override;
  void PushOut(int fd) override;
  void ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                        uint32_t scope) override;
  void Drain(int fd) override;
  Result<std::unordered_set<uint64_t>> HeldSocketInodes() override;
  std::optional<Address> SourceAddress(const Address& remote, uint32_t scope) override;
  bool SharesPort(int fd) override { return SharesItsPort(fd); }
  bool IsBroadcast(const Address& remote) override { return source_finder_.IsBroadcast(remote); }
  Result<NoXfrm> FindNoXfrm() override { return ReadNoXfrm(); }
  std::optional<Route> RouteTo(int fd, const Address& local, const Address& remote,
                               uint32_t mark) override {
    return route_finder_.Find(fd, local, remote, mark);
  }
  Result<void> BindAny(int fd, const SocketFacts& facts) override;
  Result<void> FilterDatagrams(int fd, const SocketFacts& facts,
                               const std::vector<DatagramRegion>& regions) override;
  Result<void> Admit(const DatagramAdmission& admission) override;
  void Dismiss(const DatagramAdmission& admission) override;
  void ForgetDatagrams(uint64_t cookie) override;
  uint64_t DroppedDatagrams(uint64_t cookie) override;
  Result<void> TagSa(const Sa& sa, uint32_t tag, uint32_t mask) override;
  int64_t NowMs() override;
  uint64_t WallSeconds() override;

 private:
  RealKernel(std::optional<uint64_t> netns, NetlinkEvents events, NetlinkSocket xfrm, InetDiag diag,
             LocalAddresses addresses, AbortMeans means, FragmentOptions fragments,
             const DatagramOptions& datagrams, std::string hold_mark);
  void ForgetDeadDatagrams();
  Result<void> AppendDefaults(std::vector<SpdEntry>* entries);

  const std::optional<uint64_t> netns_;
  NetlinkEvents events_;
  NetlinkSocket xfrm_;
  InetDiag diag_;
  LocalAddresses addresses_;
  AbortMeans means_;
  const bool fragments_dropped_;
  FragmentBans fragment_bans_;
  SourceFinder source_finder_;
  RouteFinder route_finder_;
  PromptClose prompt_close_;
  LarvalHold larval_hold_;
  DatagramFilter filter_;
  std::function<void(int fd, const SocketAddress& remote)> before_connect_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_REAL_KERNEL_H_
