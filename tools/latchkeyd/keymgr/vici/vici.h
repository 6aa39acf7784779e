// The key manager that is strongSwan's charon, asked over its VICI socket.
//
// VICI answers one command at a time on each connection, and list-sas can wait long. So there are
// several: one for events alone, which then wait behind no answer, one for the short commands
// (list-conns, load-conn, terminate, list-certs, version), one for list-sas, and one for each
// negotiation. Who is behind an SA is read from a mirror of charon's SAs
// (mirror.h). An SA that is not in it is asked for with list-sas in its waiting form: charon
// answers when the IKE_SAs that are being worked on are done, so an SA that was in the kernel
// before the question is in the answer, if it is charon's.
//
// When the connection is lost, what was known stays known, and whatever else is nobody's (km-lost;
// peer-unknown on a host that has never had a charon). It is made again by itself.
//
// Limits. Whoever may write to the socket's path decides who peers are: it must be root's. While a
// negotiation runs it occupies one of charon's threads (16 by default), whether we listen or not:
// so at most kMostWaitedFor run for callers, kMostRunning with those that nobody waits for any
// more, and the others wait their turn. charon logs, and so we learn, of a dead peer about one
// IKE_SA; nothing tells it from another end but that line.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/vici/choose.h"
#include "tools/latchkeyd/keymgr/vici/connection.h"
#include "tools/latchkeyd/keymgr/vici/mirror.h"
#include "tools/latchkeyd/keymgr/vici/negotiations.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

class ViciKeyManager : public KeyManager {
 public:
  struct Options {
    std::string path = "/var/run/charon.vici";
    std::function<int64_t()> now_ms;  // never goes back; empty: the monotonic clock
    std::function<void(const std::string&)> log;
  };

  // What `latchkey doctor` shows.
  struct Child {
    std::string name;
    Mode mode = Mode::kUnknown;
  };
  struct Connection {
    std::string name;
    std::string remote_id;    // as configured; empty: none
    std::string remote_auth;  // pubkey | psk | eap; empty: any
    std::vector<Child> children;
  };
  struct Snapshot {
    bool connected = false;
    std::string problem;  // why not connected
    std::string version;  // of charon
    std::vector<Connection> connections;
    size_t child_sas = 0;
  };

  // Begins to connect.
  explicit ViciKeyManager(Options options);
  ~ViciKeyManager() override = default;
  ViciKeyManager(const ViciKeyManager&) = delete;
  ViciKeyManager& operator=(const ViciKeyManager&) = delete;

  // The caller watches it for reading, calls OnReadable() when it is, and TakeEvents() then.
  int Fd() const { return poll_.get(); }
  void OnReadable();

  Identified Identify(const Sa& sa, bool inbound) override;
  // As Identify(), but asks nothing: nothing where the SA is not known.
  std::optional<Identified> Known(const Sa& sa, bool inbound) const;

  // Where the configurations as last read have no child that fits, they are read again first:
  // no-child and ambiguous-peer can come as an event too. km-lost without a connection; no-child
  // where there is no socket.
  Result<uint64_t> Acquire(const AcquireRequest& request) override;
  // charon goes on with the negotiation: nothing but its own limits ends one. Who acquires the same
  // again joins it.
  void Abandon(uint64_t ticket) override;
  // A unique demand is met by a connection of the flow's own (own.h), loaded into charon: it ends
  // here, with its IKE_SA. Those that a broker before us has left are known by their names.
  void Release(const Flow& flow) override;
  uint64_t AskKeys(const Identity& identity) override;
  std::vector<KeyEvent> TakeEvents() override;

  bool connected() const { return link_ == Link::kUp; }
  // True on a host that has never had a charon: there is no socket, and never was one.
  bool absent() const { return link_ == Link::kDown && LostReason() == Reason::kNoChild; }
  Snapshot TakeSnapshot() const;

 private:
  static constexpr uint64_t kTimerTag = 0;  // in poll_; negotiations have tags of their own
  static constexpr uint64_t kEventsTag = 1;
  static constexpr uint64_t kSasTag = 2;
  static constexpr uint64_t kCommandsTag = 3;

  enum class Link : uint8_t {
    kFirst,  // nothing is known of charon yet: the first connection is being made
    kUp,     // events are registered for
    kDown,
  };
  // One SA that was asked about.
  using Question = std::tuple<SaKey, Address, uint32_t>;
  // A connection of one flow's own.
  struct Own {
    enum class Phase : uint8_t { kLoading, kNegotiating, kUp };
    Phase phase = Phase::kLoading;
    uint64_t ticket = 0;
    bool released = false;  // ends as soon as it can
  };
  struct Command {
    std::string name;
    vici::Section message;
    std::string loads;  // load-conn: which Own
    uint64_t keys = 0;  // list-certs: which question
  };
  // What is known of the answer to AskKeys(): list-certs is asked for the peer, then for us.
  struct Keys {
    bool peer_listed = false;
    std::string peer;
  };
  // An IKE_SA that went down just now.
  struct Gone {
    uint32_t ike = 0;
    Identity peer;
    Address remote;
  };

  void Connect();
  void Lose(const std::string& why, int error);
  void Greeted();
  Reason LostReason() const;
  void Serve(vici::Connection& connection, uint64_t tag, uint32_t ready);
  void Watch(int fd, uint64_t tag, bool write);
  void OnTime();
  // What every call ends with: what may begin begins, what is over is told, the timer is set.
  void Finally();

  // vici_lists.cc: packets of the two standing connections.
  void OnEventPacket(const vici::Packet& packet);
  void OnSasPacket(const vici::Packet& packet);
  void OnEvent(const vici::Packet& packet);
  void OnListed(const vici::Packet& packet);
  bool TakeSaEvent(const std::string& name, const vici::Section& message);  // false: not read
  void OnLog(const vici::LogLine& line);
  void OnIkeUpDown(const vici::UpDown& event);
  void OnChildUpDown(const vici::UpDown& event);
  void PeerDead(const Identity& peer, const Address& remote);
  void WantSas();
  void WantConns();
  // Send what is wanted, when nothing is under way on their connection.
  void AskSas();
  void AskConns();
  void OnCommandsPacket(const vici::Packet& packet);
  void OnResponse(const vici::Packet& packet);
  void OnSasListed();
  void OnConnsListed();
  void TryDeferred();

  // vici_own.cc: connections of one flow's own.
  Result<uint64_t> Begin(const vici::Wanted& wanted, uint64_t ticket, bool named);
  Result<uint64_t> BeginOwn(const vici::Choice& choice, const vici::Wanted& wanted,
                            uint64_t ticket);
  void OnCommand(const Command& command, const vici::Section& answer);
  void OnOwnNegotiated(const std::string& name, bool made);
  void EndOwn(const std::string& name);
  void InheritOwn();
  void LoseOwn();

  // vici_keys.cc.
  void OnCerts(const Command& command);
  void LoseQuestions();

  void Changed();
  void Acquired(uint64_t ticket, const Error& why);

  int64_t Now() const { return options_.now_ms(); }
  void Log(const std::string& text) const {
    if (options_.log) options_.log(text);
  }

  Options options_;
  UniqueFd poll_;
  UniqueFd timer_;

  Link link_ = Link::kFirst;
  bool ever_up_ = false;
  int error_ = 0;  // of the last attempt to connect
  std::string problem_;
  int64_t retry_at_ = 0;  // 0: not waiting to connect
  int64_t backoff_ms_ = 0;
  int64_t greeted_by_ = 0;  // 0: no registration is under way

  vici::Connection events_;
  vici::Connection sas_;            // list-sas
  vici::Connection commands_link_;  // all other commands but initiate
  size_t confirmed_ = 0;            // of the events that are registered for

  std::string command_;   // under way on commands_link_; empty: none
  bool listing_ = false;  // list-sas is under way
  bool conns_wanted_ = false, sas_wanted_ = false, version_wanted_ = false;
  bool first_list_over_ = false;
  std::vector<vici::ConnConfig> conns_coming_;
  std::optional<int64_t> conns_at_;  // when they were last asked for
  int64_t conns_asked_at_ = 0;
  std::string version_;
  vici::Mirror mirror_;

  std::set<Question> asked_;             // since the list under way was asked for
  std::set<Question> being_asked_;       // by the list under way
  std::set<Question> denied_;            // charon has none such
  std::map<Question, int64_t> leaving_;  // had it until a moment ago: until when it is not denied
  std::set<uint32_t> dying_;             // IKE_SAs that charon gave up, until it says they are down
  std::deque<Gone> gone_;
  size_t replaced_ = 0;  // SAs that charon has replaced since the last list

  uint64_t next_ticket_ = 1;
  std::map<uint64_t, vici::Wanted> deferred_;  // they wait for the configurations
  vici::Negotiations negotiations_;
  std::deque<Command> commands_;               // to be asked on commands_link_
  Command asking_;                             // of them, where command_ is its name
  std::map<std::string, Own> owns_;            // by name
  std::map<std::string, std::string> own_of_;  // by the flow's text
  std::set<std::string> early_;                // flows released before it was known what they have
  uint32_t next_own_ = 0;
  std::map<uint64_t, Keys> questions_;  // by ticket
  std::vector<vici::Section> certs_coming_;
  std::vector<KeyEvent> happened_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_VICI_H_
