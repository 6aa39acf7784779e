// The launcher's and the control verbs' side of a conversation with one broker.
#ifndef TOOLS_LATCHKEY_CLIENT_H_
#define TOOLS_LATCHKEY_CLIENT_H_

#include <array>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "policy/model/latch.h"
#include "shim/wire/messages.h"
#include "tools/latchkey/event.h"
#include "tools/latchkeyd/latch/records.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {

inline constexpr char kDefaultSocket[] = "/run/latchkey/broker.sock";
inline constexpr char kPrivateFolder[] = "/run/latchkey/private";

using Token = std::array<uint8_t, wire::kTokenSize>;

class Client {
 public:
  // Connects; the error is an errno. Later answers are waited for at most 10 s each.
  static std::expected<Client, int> Connect(const std::string& path);

  // A session, and whether the fence stands around this process.
  struct Session {
    Token token{};
    bool fenced = false;
    std::string not_fenced;  // why not, where one was asked for
  };
  enum class Fence : uint8_t {
    kNone,    // none is asked for
    kWanted,  // as far as there can be one
    kNeeded,  // no session without it: the shim will not be heard of
  };

  // Asks for a session for this process. `policy_files` (the caller's): the policy's descriptor,
  // and its signature's where it has one; none for a session without policy. The error is the
  // broker's refusal, or what failed, in words.
  std::expected<Session, std::string> Open(const std::string& program,
                                           const std::vector<int>& policy_files,
                                           const std::string& policy_name, Fence fence);

  // Returns the latch with the lowest id above `after`, or the one with this id; nothing when there
  // is none that we may see. The error says what failed, in words.
  std::expected<std::optional<Latch>, std::string> Next(uint64_t after);
  std::expected<std::optional<Latch>, std::string> Show(uint64_t id);

  // Each returns everything of its kind; nothing to see for who may not. Errors as above.
  std::expected<std::vector<broker::OwnedEntry>, std::string> Spd();
  std::expected<std::vector<broker::KnownSa>, std::string> Sad();
  // The newest first.
  std::expected<std::vector<broker::Incident>, std::string> Incidents();
  // The sessions we may see, and which of them are fenced; and at the end one of id 0, by which the
  // broker says whether it can put up fences (`state`, `why`).
  std::expected<std::vector<wire::FenceRecord>, std::string> Fences();

  // Has the latch broken, or its suspension ended: kNone when that was done, else why not.
  std::expected<wire::Reason, std::string> Break(uint64_t id);
  std::expected<wire::Reason, std::string> Resume(uint64_t id);

  // Asks for events from now on, of which NextEvent() returns what has come, nothing when there is
  // none yet: it never waits (poll fd()). Nothing else can be asked any more.
  std::expected<wire::Reason, std::string> Watch();
  std::expected<std::optional<Event>, std::string> NextEvent();
  int fd() const { return fd_.get(); }

  // True when the broker lives in our network namespace, whose flows alone it can latch; nothing
  // where that cannot be seen (another user's broker). A hint for choosing, by the pid of whoever
  // made the socket listen.
  std::optional<bool> ServesThisNamespace() const;

 private:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}
  std::expected<std::optional<Latch>, std::string> Ask(wire::Type type, uint64_t id);
  std::expected<wire::Reason, std::string> Control(wire::Type type, uint64_t id);
  template <typename Record>
  std::expected<Record, std::string> Fetch(wire::Type type, uint64_t id, wire::Type answer);

  UniqueFd fd_;
  uint32_t serial_ = 0;
};

// Returns the sockets to ask: `named` alone when it is not empty, else LATCHKEY_SOCKET or the
// default one, and those of private brokers.
std::vector<std::string> BrokerSockets(const std::string& named);

// A broker that answers, of this network namespace.
struct Broker {
  std::string path;
  Client client;
};

// Connects to each of BrokerSockets(named). Sockets nobody listens on are passed over; `problems`
// gets a line for each that could not be asked for another reason, and one when none answers.
std::vector<Broker> ConnectAll(const std::string& named, std::vector<std::string>& problems);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_CLIENT_H_
