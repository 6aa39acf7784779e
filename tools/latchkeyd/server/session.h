// Sessions: a program, its children, their policy and their page. Named by a random token.
#ifndef TOOLS_LATCHKEYD_SERVER_SESSION_H_
#define TOOLS_LATCHKEYD_SERVER_SESSION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "policy/policy.h"
#include "policy/system_policy.h"
#include "tools/latchkeyd/server/admission.h"
#include "tools/latchkeyd/server/journal.h"
#include "tools/latchkeyd/server/page_file.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

struct Session {
  Session(SessionRecord from, std::shared_ptr<const policy::Policy> parsed, PageFile file)
      : record(std::move(from)), policy(std::move(parsed)), page(std::move(file)) {}

  SessionRecord record;
  std::shared_ptr<const policy::Policy> policy;
  PageFile page;
  policy::Grants signer_grants;
  std::map<uint32_t, policy::Grants> user_grants;  // of those that asked
  int connections = 0;                             // attached ones, and the launcher's
  int64_t idle_since = 0;                          // since when it has none; 0 = it has some
  bool checked_in = false;
  UniqueFd launched;        // pidfd of a program whose shim must check in
  int64_t check_in_by = 0;  // 0 = not running yet
};

class SessionTable {
 public:
  // How many sessions a user may have at once.
  struct Limits {
    size_t per_user = 64;
    size_t of_root = 4096;
  };

  // `pages`: the directory the page files lie in. `guard_mark`: the bit that they say marks a
  // latched socket.
  // `admission` says which policies may be used.
  SessionTable(std::string pages, uint32_t guard_mark, Admission admission, Limits limits)
      : pages_(std::move(pages)),
        guard_mark_(guard_mark),
        admission_(std::move(admission)),
        limits_(limits) {}
  SessionTable(std::string pages, uint32_t guard_mark, Admission admission = {})
      : SessionTable(std::move(pages), guard_mark, std::move(admission), Limits()) {}

  // Makes a session with a fresh token from the kernel's random source. `record` brings everything
  // but id and token. bad-policy with every error of the text, a line each; limit where the user
  // has no room.
  Result<Session*> Make(SessionRecord record);
  bool HasRoom(uint32_t uid) const;
  // Brings back one that a broker before us had, with its token and page.
  Result<Session*> Restore(const SessionRecord& record);

  // Compiles every page anew by what the SPD says now. `spd` must live as long as this; before the
  // first call the shim has to ask about everything.
  void UseSpd(const std::vector<SpdEntry>& spd);

  // What a request of `uid` in a session is granted.
  policy::Grants GrantsOf(Session& session, uint32_t uid) const;
  // Of those, the user's own, without what a signature brings.
  policy::Grants OwnGrantsOf(Session& session, uint32_t uid) const;

  Session* Find(uint64_t id);
  // Finds by token, in constant time for each session.
  Session* FindByToken(const uint8_t* token);
  void Remove(uint64_t id);
  // Removes the page files of sessions that ended while no broker ran.
  void RemoveStrays() const;

  std::map<uint64_t, Session>& all() { return sessions_; }
  // The system's file.
  const policy::SystemPolicy& file() const { return admission_.system(); }

 private:
  Result<Session*> Put(const SessionRecord& record, bool fresh);
  std::unique_ptr<policy::System> System() const;
  std::string PagePath(uint64_t id) const { return pages_ + "/" + std::to_string(id); }

  std::string pages_;
  uint32_t guard_mark_;
  Admission admission_;
  const Limits limits_;
  const std::vector<SpdEntry>* spd_ = nullptr;
  std::map<uint64_t, Session> sessions_;
  uint64_t next_id_ = 1;
};

// Between 32 octets and 64 hex digits.
std::string TokenText(const uint8_t* token);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SESSION_H_
