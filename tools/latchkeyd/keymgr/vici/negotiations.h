// The negotiations that charon was asked for: one connection and one `initiate` each.
//
// `initiate` answers when charon's attempt has ended, or after its timeout, and streams what charon
// logs of it meanwhile. Closing the connection would end neither the attempt nor the thread that
// charon spends on the answer, and a second `initiate` of the same child would make charon build
// two. So a negotiation that nobody waits for any more goes on, to be joined again.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_NEGOTIATIONS_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_NEGOTIATIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/vici/choose.h"
#include "tools/latchkeyd/keymgr/vici/connection.h"
#include "tools/latchkeyd/keymgr/vici/outcome.h"

namespace latchkey::broker::vici {

inline constexpr size_t kMostWaitedFor = 5;
inline constexpr size_t kMostRunning = 8;
// The longest that charon is to take, in milliseconds: its own patience is 165 s by default.
inline constexpr int64_t kInitiateMs = 60'000;
// How much longer until its answer is given up.
inline constexpr int64_t kSlackMs = 5'000;

class Negotiations {
 public:
  // How one ended for one ticket: kNone, or why not.
  struct Finished {
    uint64_t ticket = 0;
    Error why;
  };
  // Says which descriptor to watch, by the tag of its negotiation, and for writing too or not.
  using Watch = std::function<void(int fd, uint64_t tag, bool write)>;

  Negotiations(std::string path, Watch watch) : path_(std::move(path)), watch_(std::move(watch)) {}

  // Joins the negotiation for `choice`, or makes one to be begun by Pump(). `ticket`: the caller's
  // own; nothing: that of whoever waits for it, or `fresh`. Returns the ticket.
  uint64_t Join(const Choice& choice, std::optional<uint64_t> ticket, uint64_t fresh);
  // False when there is no such ticket.
  bool Leave(uint64_t ticket);

  // Begins what may begin, and gives up what is overdue.
  void Pump(int64_t now);
  // When Pump() has to be called at the latest.
  std::optional<int64_t> Due() const;
  void Serve(uint64_t tag, bool readable, bool writable);

  // A child of the IKE_SA `ike_id` came up, and is in the mirror: a negotiation for it, under that
  // IKE_SA by what charon logs, need not wait for a list.
  void OnChildUp(const Choice& choice, uint32_t ike_id);
  // True once when a negotiation has succeeded: a list of SAs is to be asked for.
  bool TakeWantsList() { return std::exchange(wants_list_, false); }
  // Such a list was asked for, and is over. Settle: everything about it is known: those that have
  // succeeded and are in the mirror are finished.
  void OnListAsked();
  void OnListed();
  void Settle();

  // Ends all of them, as the connection to charon is lost.
  void Lose(const Error& why);
  std::vector<Finished> TakeFinished() { return std::exchange(finished_, {}); }
  // Which negotiations are over, whether anybody waited or not, and whether they succeeded.
  std::vector<std::pair<Choice, bool>> TakeEnded() { return std::exchange(ended_, {}); }

  size_t size() const { return all_.size(); }

 private:
  enum class Phase : uint8_t {
    kQueued,
    kRunning,
    kMade,     // charon says so; a list is wanted
    kListing,  // it was asked for
    kListed,
  };
  struct One {
    Choice choice;
    std::map<uint64_t, int> tickets;  // with how many wait for each
    Phase phase = Phase::kQueued;
    Connection connection;
    int64_t deadline = 0;
    uint32_t ike_id = 0;       // of the IKE_SA that charon uses for it; 0: not known yet
    std::set<uint32_t> up_in;  // IKE_SAs in which such a child came up meanwhile
    Outcome outcome;
  };

  void Begin(uint64_t tag, One& one, int64_t now);
  void Take(One& one, const Packet& packet, std::optional<Error>& end);
  void Finish(uint64_t tag, const Error& why);

  const std::string path_;
  const Watch watch_;
  std::map<uint64_t, One> all_;  // by tag, in the order in which they came
  uint64_t next_tag_ = 16;       // below are the caller's own
  int64_t retry_at_ = 0;         // charon's backlog was full; 0: not
  bool wants_list_ = false;
  std::vector<Finished> finished_;
  std::vector<std::pair<Choice, bool>> ended_;
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_NEGOTIATIONS_H_
