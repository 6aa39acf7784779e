// Serves sessions: takes requests off connections, hands them to the engine, and tells what happens
// to latches (log, shared pages, journal). One thread; nothing here waits for a client.
#ifndef TOOLS_LATCHKEYD_SERVER_SERVER_H_
#define TOOLS_LATCHKEYD_SERVER_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "shim/wire/codec.h"
#include "tools/latchkeyd/kernel/prompt_close.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/fence_port.h"
#include "tools/latchkeyd/latch/observer.h"
#include "tools/latchkeyd/server/history.h"
#include "tools/latchkeyd/server/journal.h"
#include "tools/latchkeyd/server/latch_table.h"
#include "tools/latchkeyd/server/offload.h"
#include "tools/latchkeyd/server/session.h"
#include "tools/latchkeyd/server/wishes.h"

namespace latchkey::broker {

// What a connection has shown itself to be; requests are allowed by it.
enum class Phase : uint8_t { kFresh = 1, kControl = 2, kAttached = 4, kWatching = 8 };

// A request of a connection that the engine has not decided yet.
struct Undecided {
  uint64_t ticket = 0;  // the engine's
  uint32_t serial = 0;
  wire::Type type = wire::Type::kConnect;
  SocketAddress remote;
  UniqueFd socket;      // the program's: stays open until it is decided
  int64_t told_at = 0;  // NowMs() when the client last heard that it must wait
};

struct Connection {
  UniqueFd fd;
  uint32_t uid = 0;  // of who connected: for the caps
  Phase phase = Phase::kFresh;
  uint64_t session = 0;  // attached to, or made by it
  bool launcher = false;
  uint64_t opening = 0;  // ticket of the open that is under way; 0: none
  std::optional<Undecided> undecided;
  uint64_t binding = 0;  // ticket of the one that is being looked for; 0: none
  uint32_t binding_serial = 0;
};

// A connection that is told of every change of the latches its user may see.
struct Watcher {
  uint32_t uid = 0;     // who asked
  uint32_t serial = 0;  // of the request, for the events
};

// Users see, and control, their own latches, root all. `uid`: who sent the request.
inline bool MaySee(uint32_t uid, const Entry& entry) { return uid == 0 || uid == entry.latch.uid; }

// A session whose policy is being read.
struct Opening {
  SessionRecord record;
  int32_t pid = 0;  // who asks
  UniqueFd launched;
  bool fence = false;      // one is asked for
  bool unlatched = false;  // and without it there is to be no session
  uint32_t serial = 0;
};

// What the files of a policy hold.
struct PolicyTexts {
  std::string policy;
  std::string signature;  // empty: it has none
};

// The same, or why there is none.
struct ReadText {
  int connection = -1;
  uint64_t ticket = 0;
  Result<PolicyTexts> text;
};

// What the threads that read policies hand back. It outlives the server if it must.
struct ReadTexts {
  std::mutex mutex;
  std::vector<ReadText> done;
  UniqueFd event;  // readable when there is one
};

// A UDP socket whose program wants to be told of latches.
struct Told {
  uint64_t session = 0;  // in whose page it is told
  uint64_t inode = 0;
  uint32_t uid = 0;
  uint8_t flags = 0;    // of its slot
  bool missed = false;  // no process held it when it was looked for last
};

struct ServerOptions {
  int64_t check_in_ms = 5'000;          // after exec, for the shim to be heard of
  int64_t session_idle_ms = 3'600'000;  // a session without connections and latches
  size_t connections = 8'192;           // in all
  size_t connections_per_user = 4'096;  // root is not counted
  size_t watchers = 64;                 // in all; root is not counted, here and below
  size_t watchers_per_user = 8;
  std::string system_file = "/etc/latchkey/system.toml";  // its name, for messages
};

class Server : public Observer {
 public:
  Server(KernelPort& kernel, SessionTable& sessions, Journal& journal, ServerOptions options,
         std::function<void(const std::string&)> log);

  // The engine calls us and we call it: it is handed over once both exist.
  void Use(Engine& engine) { engine_ = &engine; }
  // Before anything is served; without it no session is fenced. Sessions that are there already,
  // and fences that a broker before us left around their programs, find each other.
  void Use(FencePort& fence);

  // Takes over a connection (SO_PASSCRED set). False when there are too many, in all or of one
  // user: it is closed. Descriptors of clients are closed beside (offload.h).
  bool AddConnection(UniqueFd fd);
  // Serves one message of a connection; ends it for anything out of order.
  void OnReadable(int fd);
  bool HasConnection(int fd) const { return connections_.contains(fd); }

  // For epoll: readable when OnTexts() has something to do.
  int TextsFd() const { return texts_->event.get(); }
  // Goes on with the sessions whose policies have been read.
  void OnTexts();
  bool IsOpening(int fd) const {
    const auto it = connections_.find(fd);
    return it != connections_.end() && it->second.opening != 0;
  }

  // How many descriptors of a user's, connections included, are let go and not closed yet.
  size_t Unclosed(uint32_t uid) const { return offload_.Pending(uid); }

  // Every half second: programs whose shim did not check in, idle sessions, the engine's own.
  void Tick();

  // Ends the sessions that have neither a connection nor a latch: at a clean stop.
  void EndIdleSessions();

  size_t session_count() { return sessions_.all().size(); }
  JournalState Snapshot();

  // Takes over the requests of a broker before us; its sessions are there already.
  void RestoreWishes(const JournalState& old);
  // Takes over from the pages which programs want to be told of latches.
  void RestoreTold();

  void OnState(const Entry& entry, State from) override;
  void OnStall(const Entry& entry, bool stalled) override;
  void OnMove(const Entry& entry) override;
  void OnVoucher(const Voucher& voucher) override;
  void OnVoucherEnd(const SaKey& key) override;
  void OnAdmission(const DatagramAdmission& admission, uint64_t latch, bool adding) override;
  void OnGuard(const Guard& guard, bool adding) override;
  void OnAnswer(uint64_t ticket, const Answer& answer) override;
  void OnBinding(uint64_t ticket, const std::string& binding) override;
  void OnRefusal(const Client& client, const Flow& flow, wire::Reason reason,
                 const std::string& detail) override;
  void OnSystem() override;
  void OnWarning(const std::string& text) override;

 private:
  friend struct RequestTable;

  // Handlers of requests (requests.cc): false ends the connection.
  bool HandleOpen(Connection& connection, wire::Received& request);
  bool HandleAttach(Connection& connection, wire::Received& request);
  bool HandleSocket(Connection& connection, wire::Received& request);
  bool HandleQuery(Connection& connection, wire::Received& request);
  bool HandleFacts(Connection& connection, wire::Received& request);
  // inquiries.cc.
  bool HandleInquire(Connection& connection, wire::Received& request);
  bool HandleInquirePeer(Connection& connection, wire::Received& request);
  bool HandleBinding(Connection& connection, wire::Received& request);
  static bool ReplyBound(const Connection& connection, uint32_t serial, int error,
                         const std::string& binding);
  // told.cc: programs that want to be told of latches with datagrams.
  bool HandleLatches(Connection& connection, wire::Received& request);
  Answer TakeLatches(const Client& client, int fd, uint32_t flags);
  void TellAll(uint64_t cookie);
  void TellState(const Entry& entry, bool over);
  wire::LatchTable* TableOf(uint64_t cookie);
  void Put(wire::LatchTable& table, const LatchLine& line);
  void PruneTold(const std::unordered_set<uint64_t>& held);
  // requests_own.cc: requests of a program's own.
  bool HandleWish(Connection& connection, wire::Received& request);
  // control.cc.
  bool HandleControl(Connection& connection, wire::Received& request);
  bool HandleWatch(Connection& connection, wire::Received& request);

  // fences.cc.
  bool HandleFence(Connection& connection, wire::Received& request);
  // Puts the fence around a session's program, or writes down why there is none.
  void Enclose(Session& session, int32_t pid);
  FenceIncoming IncomingOf(const Session& session) const;
  void PushRules(Session& session);
  // Notes an answer on its socket, where the fence looks for it.
  void TellFence(wire::Type type, int fd, const SocketAddress& remote, const Answer& answer);
  // What the fences have stopped becomes known; those that nothing is left in go.
  void ReadFences();
  void TickFences();
  static bool IsFenced(const Session& session);

  // Tells the watchers of `entry` what happened to it; `stalled` as in wire::EventRecord. One that
  // does not take its events is ended: what it was not told it knows to have missed.
  void Tell(const Entry& entry, State from, uint8_t stalled);
  bool TooManyWatchers(uint32_t uid) const;

  // Fills in the sender of a message that the kernel names none for. False: nobody vouches.
  static bool CompleteCredentials(const Connection& connection, wire::Received& request);
  bool Serve(Connection& connection, wire::Received& request);
  bool FinishOpen(Connection& connection, Opening opening, Result<PolicyTexts> text);
  void EndSession(uint64_t id);
  // The rule that a flow falls under (cause.h).
  std::string CauseIn(uint64_t session, const policy::Policy* policy, const Flow& flow,
                      const policy::Rule* rule = nullptr);
  void MakeRoom(uint32_t uid);
  bool HasLatch(uint64_t session) const;
  Client ClientOf(Session& session, const wire::Received& request) const;
  // Puts a socket's own request in the place of its session's policy. False for one that may have
  // one, and nobody knows it any more.
  bool HoldToRequest(Client& client, int fd, wire::Type type);
  Answer TakeWish(const Client& client, int fd, const std::string& text, int& error);
  void PruneWishes();
  void MarkPages();
  static bool Reply(const Connection& connection, const void* message, uint32_t size,
                    int descriptor = -1);
  void End(int fd, const char* why);
  static bool TellToWait(const Connection& connection);
  static wire::Decision DecisionOf(const Answer& answer, uint32_t serial);

  KernelPort& kernel_;
  SessionTable& sessions_;
  Journal& journal_;
  const ServerOptions options_;
  const std::function<void(const std::string&)> log_;
  Engine* engine_ = nullptr;
  FencePort* fence_ = nullptr;
  bool fence_told_ = false;  // that decisions cannot be noted
  std::map<int, Connection> connections_;
  std::map<int, Watcher> watchers_;  // by connection
  std::set<Guard> guards_;
  History history_;
  Offload offload_;
  PromptClose prompt_close_;
  std::shared_ptr<ReadTexts> texts_;
  std::map<uint64_t, Opening> openings_;
  uint64_t last_ticket_ = 0;
  WishTable wishes_;
  std::map<uint64_t, Told> told_;  // by cookie
  bool wishes_lost_ = false;       // the journal had lines that cannot be read
  int64_t pruned_at_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SERVER_H_
