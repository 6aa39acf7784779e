// The latch database and its rules: what happens on every request and every kernel event.
//
// One thread, no blocking: the server calls in, the kernel and the key manager are reached through
// their interfaces, and the observer hears of every change (log, shared page, journal). RFC 5660's
// key manager side (section 2.3) is this class.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "policy/decide.h"
#include "tools/latchkeyd/latch/database.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/guard_set.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/latchkeyd/latch/observer.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

struct Options {
  uint32_t guard_mark = 0x80000000;  // one bit of SO_MARK
  int64_t sa_grace_ms = 15'000;      // how long a latch may lack its SA before it breaks (no-sa)
  int64_t linger_ms = 65'000;        // how long a closed flow's SPD entry stays: TIME_WAIT is 60 s
  int64_t reap_ms = 2'000;           // how often closed sockets are looked for
  size_t latches_per_uid = 65'536;
  bool shared_guards = false;  // another broker's standing guards may serve us too
  // What system.toml says.
  std::shared_ptr<const policy::SystemPolicy> system =
      std::make_shared<const policy::SystemPolicy>();
};

struct Answer {
  wire::Verdict verdict = wire::Verdict::kRefused;
  Reason reason = Reason::kBadRequest;
  uint64_t latch = 0;
};

class Engine {
 public:
  Engine(KernelPort& kernel, KeyManager& keys, Observer& observer, Options options);

  // Reads SAD and SPD (the caller has joined the event groups), takes over what a broker before
  // left behind (`guards` and `latches` of its journal: each latch is found again by its cookie and
  // verified anew, or broken; what nothing needs any more is removed) and puts up the standing
  // guards.
  Result<void> Start(const std::vector<Guard>& guards, std::vector<Entry> latches);

  // The requests of docs/PROTOCOL.md. `fd` is the program's socket, passed to us; the caller closes
  // it. `fd_hint` is its number in the program. A refused accept leaves the child blocked.
  Answer Connect(const Client& client, int fd, int fd_hint, const SocketAddress& remote);
  Answer Listen(const Client& client, int fd, int fd_hint);
  Answer Accept(const Client& client, int fd, int fd_hint);
  Answer Release(const Client& client, int fd);

  void OnEvents(const std::vector<KernelEvent>& events);

  // Reaps closed sockets and ends stalls that lasted too long. Call it about every 500 ms; with
  // `reap_now` it looks for closed sockets at once.
  void Tick(bool reap_now = false);

  // Takes away every guard of ours: a clean stop. Sockets keep their own policies. With `others`,
  // the standing guards stay: another broker of the namespace leans on them.
  void Stop(bool others = false);

  const Database& database() const { return database_; }

  // For the control program: the SPD as last dumped, and the SAs with who is behind them.
  const std::vector<SpdEntry>& spd() const { return spd_; }
  const SaTable& sas() const { return sas_; }
  // Says whose an SPD entry is: the system's, a guard's, or that of a latch, then named in `latch`.
  wire::Owner OwnerOf(const SpdEntry& entry, uint64_t& latch) const;

  // What the system asks of flows: the SPD without our own entries, and the file.
  policy::System system() const { return {*options_.system, system_spd_}; }

 private:
  struct Choice {
    Verified verified;
    Protection protection;
    uint32_t reqid = 0;
    uint32_t spi_in = 0;
    uint32_t spi_out = 0;
    Pin pin = Pin::kReqid;
  };

  // engine.cc: requests.
  Answer Refuse(const Client& client, const Flow& flow, Reason reason, const std::string& detail);
  Result<SocketFacts> InspectTcp(int fd);
  Answer LeaveAlone(const Client& client, int fd, const SocketFacts& facts, const Flow& flow,
                    policy::Outcome outcome);
  Answer Protect(const Client& client, int fd, int fd_hint, const SocketFacts& facts,
                 const Flow& flow, const policy::Verdict& verdict);
  Result<void> Pin(int fd, const SocketFacts& facts, const Flow& flow, const Choice& choice);
  Answer GoClear(const Client& client, int fd, int fd_hint, const SocketFacts& facts,
                 const Flow& flow, const policy::Verdict& verdict,
                 const policy::ClearPermit& permit);
  Result<Choice> ChooseSa(const Flow& flow, const policy::Demand& demand);
  void IdentifyAgain(const Flow& flow);

  // engine_listen.cc: listeners and their guards.
  Answer AcceptProtected(const Client& client, int fd, int fd_hint, const SocketFacts& facts,
                         const Flow& flow, const policy::Verdict& verdict);
  const Entry* ListenerOf(const Flow& flow) const;
  std::vector<Guard> ListenerSaGuards(const Entry& entry) const;
  void RefreshListener(Entry& entry);
  void NoteClearChildren(Entry& entry);

  // engine_watch.cc: what happens without being asked.
  bool Direct(const Sa& sa, bool& inbound);
  void LearnSa(const Sa& sa);
  void CheckLatch(Entry& entry);
  void CheckAll();
  void Break(Entry& entry, Reason reason);
  void Silence(Entry& entry, bool first);
  void Close(uint64_t id, Reason reason);
  void DropLingering(int64_t until);
  Result<void> Resynchronise();
  Result<void> ReadSpd();
  void Reap(bool thorough);
  void Adopt(Entry entry, const std::vector<LiveSocket>& live,
             const std::unordered_set<uint64_t>& held);
  Guard StandingBlock(Family family) const;

  KernelPort& kernel_;
  KeyManager& keys_;
  Observer& observer_;
  Options options_;
  Database database_;
  SaTable sas_;
  GuardSet guards_;
  std::vector<SpdEntry> spd_;         // all of it
  std::vector<SpdEntry> system_spd_;  // without our own, marked and interface entries
  std::deque<std::pair<int64_t, Guard>> lingering_;  // until when; oldest first
  int64_t last_reap_ = 0;
  int64_t last_mourning_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_H_
