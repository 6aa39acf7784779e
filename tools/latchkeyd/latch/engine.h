// The latch database and its rules: what happens on every request and every kernel event.
//
// One thread, no blocking: the server calls in, the kernel and the key manager are reached through
// their interfaces, and the observer hears of every change (log, shared page, journal). RFC 5660's
// key manager side (section 2.3) is this class.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "policy/decide.h"
#include "tools/latchkeyd/latch/database.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/guard_set.h"
#include "tools/latchkeyd/latch/hold_plan.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/latchkeyd/latch/legacy.h"
#include "tools/latchkeyd/latch/listener_plan.h"
#include "tools/latchkeyd/latch/observer.h"
#include "tools/latchkeyd/latch/options.h"
#include "tools/latchkeyd/latch/peer_look.h"
#include "tools/latchkeyd/latch/sa_choice.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

class Engine {
 public:
  Engine(KernelPort& kernel, KeyManager& keys, Observer& observer, Options options);

  // Reads SAD and SPD (the caller has joined the event groups), takes over what a broker before
  // left behind (each latch is found again by its cookie and verified anew, or broken; what nothing
  // needs any more is removed) and puts up the standing guards.
  Result<void> Start(Legacy legacy);

  // The requests of docs/PROTOCOL.md. `fd` is the program's socket, passed to us; the caller closes
  // it. `fd_hint` is its number in the program. A refused accept leaves the child blocked.
  //
  // Where keys must be had first, or the key manager be asked, the answer is kWait with a ticket:
  // the observer's OnAnswer() follows, and `fd` must stay open until then, or until Cancel(). A
  // `nonblocking` connect waits Options::inline_ms, then goes on LARVAL. `scope`: the interface of
  // a link-local IPv6 address, as the program gave it; 0: none.
  Answer Connect(const Client& client, int fd, int fd_hint, const SocketAddress& remote,
                 bool nonblocking = false, uint32_t scope = 0);
  Answer Listen(const Client& client, int fd, int fd_hint);
  Answer Accept(const Client& client, int fd, int fd_hint);
  Answer Release(const Client& client, int fd, int fd_hint = -1);
  // Takes an unconnected UDP socket under the rules (kBypass: none says anything of it), and makes
  // one ready to send to `remote`. Of one that Hold() refuses nothing moves any more. A
  // `nonblocking` Peer() waits Options::inline_ms; what it began goes on for the next.
  Answer Hold(const Client& client, int fd, int fd_hint);
  Answer Peer(const Client& client, int fd, int fd_hint, const SocketAddress& remote,
              bool nonblocking = false, uint32_t scope = 0);
  // Nobody waits for this ticket any more.
  void Cancel(uint64_t ticket);

  // Makes a TCP or UDP socket ready for a program's own request: marked, so that it sends nothing
  // before the request is decided. Returns what it is; bad-request for one that was used before.
  Result<SocketFacts> Reserve(int fd);

  // True for an idle socket that bears the mark and has no latch: it was reserved, or an
  // earlier latch left it.
  bool IsMarkedAlone(int fd);

  // The latch of a socket as it is now, with the address that its end has; nothing where it has
  // none. A listener's child has one from accept on.
  std::optional<Latch> LatchOf(int fd);

  // The same of a peer of the socket, by its latch's id; or of the socket itself.
  std::optional<Latch> PeerLatchOf(int fd, uint64_t id);

  // A latch as it is shown: with what the kernel counts of it.
  Latch Shown(const Entry& entry);

  // Begins to find the channel binding of a socket's latch; returns a ticket for one OnBinding(),
  // or 0: there is none. For a latch in good order, both of whose ends have public keys.
  uint64_t AskBinding(int fd);

  // The administrator's: end a latch that is in good order, and end such a break of one that
  // suspends. kNone: done; kBadRequest: there is no such latch, or it is in no state for it. (A
  // listener's only end is its program's close.)
  Reason AdminBreak(uint64_t id);
  Reason AdminResume(uint64_t id);

  void OnEvents(const std::vector<KernelEvent>& events);

  // Takes what the key manager has to say (call it after OnEvents: an SA is there before its name).
  void OnKeys();

  // Decides what has waited long enough. NextDue() says when that is, in NowMs(); nothing: never.
  void OnTime();
  std::optional<int64_t> NextDue() const;

  // Reaps closed sockets and ends stalls that lasted too long. Call it about every 500 ms; with
  // `reap_now` it looks for closed sockets at once.
  void Tick(bool reap_now = false);

  // Takes away every guard of ours: a clean stop. Sockets keep their own policies. With `others`,
  // the standing guards stay: another broker of the namespace leans on them.
  void Stop(bool others = false);

  const Database& database() const { return database_; }
  uint32_t tag_mask() const { return options_.tag_mask; }

  // For the control program: the SPD as last dumped, and the SAs with who is behind them.
  const std::vector<SpdEntry>& spd() const { return spd_; }
  const SaTable& sas() const { return sas_; }
  // Says whose an SPD entry is: the system's, a guard's, or that of a latch, then named in `latch`.
  wire::Owner OwnerOf(const SpdEntry& entry, uint64_t& latch) const;

  // What the system asks of flows: the SPD without our own entries, and the file.
  policy::System system() const { return {*options_.system, system_spd_}; }

 private:
  using Choice = SaChoice;
  using Standing = SaStanding;

  // A connect, an accept, or a first datagram to somebody that is to be decided.
  struct Request {
    Client client;
    int fd = -1;
    int fd_hint = -1;
    bool accept = false;
    bool nonblocking = false;
    SocketAddress remote;
    uint32_t scope = 0;
    bool peer = false;  // an unconnected UDP socket's
  };

  // One that is not decided yet.
  struct Waiting {
    Request request;
    uint64_t negotiation = 0;        // the key manager's ticket; 0: none was begun, or it is done
    int64_t deadline = 0;            // 0: it does not wait yet
    int64_t larval_at = 0;           // when a non-blocking connect goes on without
    std::optional<Flow> asked = {};  // for which SAs of its own were asked for
  };

  // What a user's unconnected UDP sockets have of the filter.
  struct Share {
    size_t admitted = 0;
    bool exhausted = false;  // somebody was turned away since there was room
  };

  // engine.cc: requests.
  Answer Refuse(const Client& client, const Flow& flow, Reason reason, const std::string& detail);
  Result<SocketFacts> InspectInet(int fd);
  Result<SocketFacts> InspectTcp(int fd);
  Result<SocketFacts> InspectFlow(int fd);
  bool Supersede(uint64_t cookie);
  Result<SocketFacts> ConnectDatagrams(const Request& request, const SocketFacts& facts);
  Result<bool> MoveDatagrams(int fd, const SocketFacts& facts, const Flow& flow, uint32_t scope);
  Answer ReleaseDatagrams(const Client& client, int fd, int fd_hint, const SocketFacts& facts);
  struct Leave {
    uint32_t scope = 0;     // of the remote address
    uint32_t stays_by = 0;  // as StaysBy()
    bool was_held = false;
  };
  Answer LeaveAlone(const Client& client, int fd, const SocketFacts& facts, const Flow& flow,
                    const Leave& leave);
  uint32_t StaysBy(int fd, uint32_t mark, const Flow& flow) const;
  Result<Choice> ChooseOrWait(const Request& request, const Flow& flow,
                              const policy::Verdict& verdict, Waiting* waiting,
                              const Error* failure);
  Answer Attempt(const Request& request, Waiting* waiting, const Error* failure);
  Answer AttemptConnect(const Request& request, Waiting* waiting, const Error* failure);
  Answer Protect(const Request& request, const SocketFacts& facts, const Flow& flow,
                 const policy::Verdict& verdict, Waiting* waiting, const Error* failure);
  Result<void> Pin(int fd, const SocketFacts& facts, const Flow& flow, const Choice& choice);
  static void Describe(Entry& entry, const Choice& choice, const policy::Verdict& verdict);
  Answer GoClear(const Request& request, const SocketFacts& facts, const Flow& flow,
                 const policy::Verdict& verdict, const policy::ClearPermit& permit);
  Result<Choice> ChooseSa(const Flow& flow, const policy::Demand& demand);
  bool Suspends(const policy::Verdict& verdict) const;

  // engine_wait.cc: requests that wait for keys.
  Answer Begin(Request request);
  bool MayWait(const Waiting* waiting) const;
  Result<void> Wait(Waiting& waiting, const Flow& flow, const policy::Verdict& verdict,
                    bool pending);
  void Deliver(uint64_t ticket, const Error* failure);
  void RetryWaiting();

  // engine_larval.cc: latches that do.
  Result<SocketAddress> HoldBack(const Request& request, const SocketFacts& facts,
                                 const Guard& guard, bool was_held);
  void GoLarval(uint64_t ticket);
  void TryLarval(Entry& entry, const Error* failure);
  void EndLarval(Entry& entry, std::optional<uint32_t> placeholder);
  bool RenewForAll(const Guard& from, const Guard& to);
  Result<void> HoldOver(const Guard& guard);
  bool Leaned(const Guard& guard) const;
  uint32_t PlaceholderReqid() const;
  void TellBinding(const KeyEvent& event);

  // engine_listen.cc: listeners and their guards.
  Answer AttemptAccept(const Request& request, Waiting* waiting, const Error* failure);
  Answer AcceptProtected(const Request& request, const SocketFacts& facts, const Flow& flow,
                         const policy::Verdict& verdict, Waiting* waiting, const Error* failure);
  Result<void> Join(const Client& client, int fd, const SocketFacts& facts,
                    const ListenerPlan& plan);
  const Entry* ListenerOf(const Flow& flow) const;
  Result<std::shared_ptr<const policy::Policy>> RequestFor(const Client& client, const Flow& flow);
  bool AskedForSa(const Entry& listener, const Client& client, uint64_t cookie, const Flow&) const;
  size_t IdentitiesBehind(const Entry* listener, const SocketFacts& facts, const Flow& flow,
                          const policy::Verdict& verdict) const;

  // engine_peers.cc: whom listeners may answer.
  static bool KeepsClearOut(const Entry& listener, const Address& remote);
  static bool HoldsTunnels(const Entry* listener, const policy::Verdict& verdict,
                           const Address& remote);
  std::set<std::optional<Identity>> IdentitiesAt(const Entry& listener, const Flow& flow,
                                                 bool by_reqid, bool elder = false) const;
  std::vector<Guard> ListenerSaGuards(Entry& entry, const std::set<Address>* peers,
                                      std::vector<Guard>& unnamed);
  bool StartAnew(Entry& entry, const Flow& flow, const Prefix& remote,
                 const std::set<std::optional<Identity>>& identities, bool by_reqid);
  void LetGo(Entry& entry);
  void Tell(Entry& entry, const std::set<Address>* peers, const std::map<Prefix, Error>& unserved);
  void RefreshListener(Entry& entry, const std::set<Address>* peers = nullptr);
  void NoteClearChildren(Entry& entry);
  bool NoteQueued(const Entry& entry, const std::set<Prefix>& remotes, std::set<uint64_t>& noted);

  // engine_answers.cc: answers that wait for a name.
  bool AwaitsName(const std::vector<const KnownSa*>& sas) const;
  bool HoldBack(const Guard& guard);
  bool LetAnswersGo(const Guard& guard);
  void EndHolds();

  // engine_hold.cc: unconnected UDP sockets.
  Result<void> HoldSocket(Entry& entry, int fd, const SocketFacts& facts, const HoldPlan& plan);
  Result<void> Conflicting(const Entry& entry, const HoldPlan& plan) const;
  Result<void> OpenFilter(bool was_held, int fd, const SocketFacts& facts);
  Answer Shun(const Client& client, int fd, const SocketFacts& facts, const Flow& flow,
              const Error& why);
  void Cease(Entry& entry, const Error& why);
  void AdoptHeld(Entry& entry, bool suspect);
  void Replan(Entry& entry);
  void Shut(Entry& entry);

  // engine_asked_peers.cc: whom their programs ask about.
  Answer AttemptPeer(const Request& request, Waiting* waiting, const Error* failure);
  Answer ProtectPeer(const Request& request, Entry& entry, const Flow& flow,
                     const policy::Verdict& verdict, Waiting* waiting, const Error* failure);
  void LetAgedGo(Entry& entry, const std::map<SocketAddress, HeldPeer>& aged);
  Result<HeldPeer*> AskedPeer(const Request& request, Entry& entry, const SocketAddress& remote,
                              bool clear, bool same_host = false);
  Result<void> PassInClear(const Request& request, Entry& entry, const Flow& flow,
                           const policy::Verdict& verdict);

  // engine_held_peers.cc: whom they have to do with.
  policy::Verdict DecideDatagram(const Entry& entry, const Flow& flow) const;
  const Identity* RivalOf(const Entry& entry, const SocketAddress& remote,
                          const Identity& identity) const;
  bool RefreshPeer(Entry& entry, const SocketAddress& remote, HeldPeer& peer);
  // engine_held_look.cc: one of them.
  PeerLook LookAtPeer(const Entry& entry, const SocketAddress& remote, HeldPeer& peer) const;
  void Unbind(HeldPeer& peer, const PeerLook& look);
  void JudgePeer(const Entry& entry, const SocketAddress& remote, HeldPeer& peer,
                 PeerLook& look) const;
  void ServePeer(const Entry& entry, HeldPeer& peer, const PeerLook::Way& way, PeerLook& look);
  std::vector<SaKey> ServeInDoubt(HeldPeer& peer, const PeerLook::Way& way, PeerLook& look,
                                  std::optional<Guard>& guard) const;
  std::vector<SaKey> ServeBySas(const Entry& entry, HeldPeer& peer, const PeerLook::Way& way,
                                PeerLook& look, std::optional<Guard>& guard) const;
  // engine_held_latches.cc: their latches.
  Entry PeerEntry(const Entry& entry) const;
  Entry* MakePeerLatch(const Entry& entry, HeldPeer& peer, const PeerLook& look);
  void NotePeer(const Entry& entry, HeldPeer& peer, const PeerLook& look);
  void EndPeerLatch(HeldPeer& peer, Reason reason);
  bool LookAtPeerOf(const Entry& latch);
  void NoteAdminBreak(const Entry& latch, bool broken);
  void BindBrokenPeers(Entry& entry);
  void RestoreBrokenPeers(Entry& entry);
  void Provide(Entry& entry, HeldPeer& peer, PeerLook& look);
  Result<void> HoldProof(HeldPeer& peer, const Guard& proof);
  void RefreshHeld(Entry& entry, const std::set<Address>* peers = nullptr);
  void CheckHeldInTime();
  void LetGoOfPeers(Entry& entry);

  // engine_held_share.cc: one user's share of the filter.
  bool HasShare(uint32_t uid, size_t regions, size_t asked) const;
  bool MayAdmit(uint32_t uid);
  void Exhaust(uint32_t uid);
  void Ration(const Entry& entry, HeldPeer& peer, PeerLook& look);
  void RenewShares();

  // engine_tags.cc: by what the kernel tells under which SA a datagram came.
  uint32_t TagOf(const SaKey& key);
  uint32_t Retag(const KnownSa& known);
  uint32_t FreshTag();
  void AddTagSharers(const std::vector<Sa>& sas, std::set<Address>& peers) const;
  bool IsShared(uint32_t tag, const SaKey& key) const;
  void NoteTag(const Sa* before, const Sa* after);

  // engine_no_xfrm.cc: devices that keep the SPD out.
  Result<void> LookForNoXfrm();
  void FollowNoXfrm();
  void ShutV4(Entry& entry, bool shut);
  std::string WhyShut(const Entry& entry, const Address& remote) const;
  std::string PastSpd(int fd, uint32_t mark, const Flow& flow);
  std::string SpeaksPastSpd(const SocketFacts& facts) const;
  std::string CamePastSpd(const Entry* listener, uint64_t cookie, Family family);
  bool NoteWhoCamePastSpd(Family family);
  Family FamilyToBlock(const SocketFacts& facts) const;

  // engine_watch.cc: what happens without being asked.
  void CheckAll();
  bool CheckTouched(const std::vector<Sa>& sas, std::set<Address>* peers = nullptr);
  void CheckListeners(const std::set<Address>* peers = nullptr);
  void CheckSystem();

  // engine_sas.cc: the SAs, and who is behind them.
  bool Direct(const Sa& sa, bool& inbound);
  void LearnSa(const Sa& sa);
  void PutSa(const Sa& sa, bool inbound, Identified who);
  void EraseSa(const SaKey& key, bool unused = false);
  Result<void> Resynchronise();
  void IdentifyAll();
  void IdentifyAgain(const Flow& flow);
  bool Pending(const Flow& flow) const;

  // engine_takeover.cc: what a broker before us left.
  int RemoveUnknownGuards(bool out);
  Result<void> DropLeftLarvals();
  int CutOffUnknown(const std::vector<LiveSocket>& live);
  void Adopt(Entry entry, const std::vector<LiveSocket>& live,
             const std::unordered_set<uint64_t>& held, bool suspect);

  // engine_latch.cc: one latch, as its SAs come and go.
  void CheckLatch(Entry& entry);
  Standing Stand(const Entry& entry) const;
  Reason Obstacle(const Entry& entry, const Standing& standing) const;
  void Rekindle(const Entry& entry);
  bool Move(Entry& entry, const Standing& standing);
  bool Repin(Entry& entry, const Standing& standing, uint32_t spi_in);
  void Recover(Entry& entry, const Standing& standing);
  bool SystemAllows(const Entry& entry) const;
  void Break(Entry& entry, Reason reason);
  void Silence(Entry& entry, bool first);
  void Restate(Entry& entry, Reason reason);
  void Close(uint64_t id, Reason reason);
  void ReleaseKeys(const Entry& entry);
  void DropLingering(int64_t until);
  Result<void> ReadSpd();
  void Reap(bool thorough);
  bool HasTooMany(uint32_t uid);
  Guard StandingBlock(Family family) const;

  KernelPort& kernel_;
  KeyManager& keys_;
  Observer& observer_;
  Options options_;
  Database database_;
  SaTable sas_;
  GuardSet guards_;
  std::vector<SpdEntry> spd_;                // all of it
  std::vector<SpdEntry> system_spd_;         // without our own, marked and interface entries
  std::multimap<int64_t, Guard> lingering_;  // by when they go
  std::map<uint64_t, Waiting> waiting_;      // by ticket
  uint64_t next_ticket_ = 1;
  std::map<uint64_t, uint64_t> bindings_;  // latches, by the key manager's tickets
  std::set<uint64_t> larvals_;             // latches; while there are any, packets are held back
  std::map<Guard, int64_t> held_answers_;  // so while one keeps answers back; since when
  bool stale_ = false;  // SAD and SPD could not be read: what we know is no basis for more
  std::map<uint32_t, std::set<SaKey>> tags_;  // incoming SAs, by what they bear
  std::set<SaKey> tagged_;                    // of them, by us
  std::set<SaKey> untagged_;                  // of them, such as cannot be
  uint32_t last_tag_ = 0;
  std::map<uint32_t, Share> shares_;  // by user
  std::vector<Voucher> departed_;     // of a broker before us, whose SAs went while nobody watched
  // Peers of entries that are gone: a listener may have leaned on them for its own. Until Tick().
  std::set<Address> unserved_;
  // A listener was found closed: at the next Tick() those who wait are decided anew (whoever found
  // it may be deciding one of them).
  bool retry_ = false;
  // Bypassed UDP sockets, once held, whose filter lets all pass: inodes by cookie.
  std::map<uint64_t, uint64_t> opened_;
  NoXfrm no_xfrm_;
  std::optional<int64_t> no_xfrm_read_at_;
  bool no_xfrm_unreadable_ = false;
  std::set<uint64_t> came_past_spd_;  // cookies of connections that waited then
  int64_t last_reap_ = 0;
  int64_t last_mourning_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_H_
