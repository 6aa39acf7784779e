// The running kernel, for measuring where it has no ESP: everything real but what ESP is needed
// for.
//
// An SA that does not exist is reported for every pair in question, and a socket policy that would
// ask for ESP is set as one that allows without templates, through the same socket option. Nothing
// is protected: for benchmarks, never for use.
#ifndef TESTS_BENCH_BENCH_KERNEL_H_
#define TESTS_BENCH_BENCH_KERNEL_H_

#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "tools/latchkeyd/kernel/real_kernel.h"

namespace latchkey::broker {

class BenchKernel : public KernelPort {
 public:
  // Reports SAs between `local` and `remote`, both ways, AES-256-GCM, under reqid 7.
  BenchKernel(std::unique_ptr<RealKernel> real, Address local, Address remote);

  RealKernel& real() { return *real_; }

  // Adds SAs for another peer; returns what the kernel would tell of them.
  std::vector<KernelEvent> AddPair(const Address& local, const Address& remote);

  Result<SocketFacts> Inspect(int fd) override { return real_->Inspect(fd); }
  Result<void> SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) override;
  Result<void> SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) override {
    return real_->SetMark(fd, facts, value, mask);
  }
  Result<void> AwaitArrivals() override { return real_->AwaitArrivals(); }
  Result<void> TellMarks(int, bool) override { return {}; }
  Result<std::vector<Sa>> DumpSad() override { return sad_; }
  Result<std::vector<SpdEntry>> DumpSpd() override { return real_->DumpSpd(); }
  Result<void> AddGuard(const Guard& guard) override { return real_->AddGuard(guard); }
  Result<void> DeleteGuard(const Guard& guard) override { return real_->DeleteGuard(guard); }
  Result<void> RenewGuard(const Guard& from, const Guard& to) override {
    return real_->RenewGuard(from, to);
  }
  void HoldPackets(bool on) override { real_->HoldPackets(on); }
  void DropLarval(const Address& local, const Address& remote, SaProtocol protocol, uint32_t reqid,
                  uint32_t mark) override {
    real_->DropLarval(local, remote, protocol, reqid, mark);
  }
  void DropLarval(const Sa& larval) override { real_->DropLarval(larval); }
  Result<void> BanFragments(const std::vector<FragmentBan>& bans) override {
    return real_->BanFragments(bans);
  }
  bool FragmentsBanned() override { return real_->FragmentsBanned(); }
  bool IsLocalAddress(const Address& address) override { return real_->IsLocalAddress(address); }
  std::optional<int> Borrow(const SocketHint& hint) override { return real_->Borrow(hint); }
  void GiveBack(int fd) override { real_->GiveBack(fd); }
  Result<void> Abort(const SocketHint& hint, int fd, const Flow& flow) override {
    return real_->Abort(hint, fd, flow);
  }
  Result<std::vector<LiveSocket>> LiveSockets() override { return real_->LiveSockets(); }
  void PushOut(int fd) override { real_->PushOut(fd); }
  void ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                        uint32_t scope) override {
    real_->ConnectDatagrams(fd, facts, remote, scope);
  }
  void Drain(int fd) override { real_->Drain(fd); }
  Result<std::unordered_set<uint64_t>> HeldSocketInodes() override {
    return real_->HeldSocketInodes();
  }
  std::optional<Address> SourceAddress(const Address& remote, uint32_t scope) override {
    return real_->SourceAddress(remote, scope);
  }
  bool SharesPort(int fd) override { return real_->SharesPort(fd); }
  bool IsBroadcast(const Address& remote) override { return real_->IsBroadcast(remote); }
  Result<NoXfrm> FindNoXfrm() override { return real_->FindNoXfrm(); }
  std::optional<Route> RouteTo(int fd, const Address& local, const Address& remote,
                               uint32_t mark) override {
    return real_->RouteTo(fd, local, remote, mark);
  }
  Result<void> BindAny(int fd, const SocketFacts& facts) override {
    return real_->BindAny(fd, facts);
  }
  Result<void> FilterDatagrams(int fd, const SocketFacts& facts,
                               const std::vector<DatagramRegion>& regions) override {
    return real_->FilterDatagrams(fd, facts, regions);
  }
  Result<void> Admit(const DatagramAdmission& admission) override {
    return real_->Admit(admission);
  }
  void Dismiss(const DatagramAdmission& admission) override { real_->Dismiss(admission); }
  void ForgetDatagrams(uint64_t cookie) override { real_->ForgetDatagrams(cookie); }
  uint64_t DroppedDatagrams(uint64_t cookie) override { return real_->DroppedDatagrams(cookie); }
  // There is no SA that could be.
  Result<void> TagSa(const Sa&, uint32_t, uint32_t) override { return {}; }
  int64_t NowMs() override { return real_->NowMs(); }
  uint64_t WallSeconds() override { return real_->WallSeconds(); }

 private:
  std::unique_ptr<RealKernel> real_;
  std::vector<Sa> sad_;
  uint32_t next_spi_ = 0x1001;
};

}  // namespace latchkey::broker

#endif  // TESTS_BENCH_BENCH_KERNEL_H_
