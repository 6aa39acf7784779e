// Whether a policy may be used, and what comes with it: its signature, who it is for, how long it
// holds, and what it and its user are granted.
#ifndef TOOLS_LATCHKEYD_SERVER_ADMISSION_H_
#define TOOLS_LATCHKEYD_SERVER_ADMISSION_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "policy/grants.h"
#include "policy/model/error.h"
#include "policy/policy.h"
#include "policy/system_policy.h"
#include "tools/latchkeyd/server/journal_line.h"
#include "tools/latchkeyd/server/serials.h"
#include "tools/latchkeyd/server/users.h"

namespace latchkey::broker {

struct Admitted {
  std::shared_ptr<const policy::Policy> policy;
  policy::Grants signer;  // of whose key signed it
};

class Admission {
 public:
  using Clock = std::function<std::chrono::sys_seconds()>;

  // With no system policy: nobody but root is granted anything, and no signature counts.
  Admission() : Admission(std::make_shared<const policy::SystemPolicy>(), "/var/lib/latchkey") {}
  // `state`: the directory of the serials.
  Admission(std::shared_ptr<const policy::SystemPolicy> system, std::string state,
            Users users = Users(), Clock clock = Now);

  // Checks a session's policy. The signature first, over the octets as they are: nothing parses
  // what a wrong one comes with. Refuses with bad-signature, bad-policy (every error of the text, a
  // line each; another program's or user's), policy-expired or policy-rollback. `fresh`: false for
  // a session that was admitted before, by a broker before us: time does not end it.
  Result<Admitted> Admit(const SessionRecord& record, bool fresh) const;

  // What a user may do by who he is.
  policy::Grants GrantsOf(uint32_t uid) const { return users_.GrantsOf(system_->grants, uid); }

  const policy::SystemPolicy& system() const { return *system_; }

 private:
  static std::chrono::sys_seconds Now();
  Result<policy::Grants> CheckSignature(const SessionRecord& record,
                                        const policy::Signer** signer) const;

  std::shared_ptr<const policy::SystemPolicy> system_;
  Serials serials_;
  Users users_;
  Clock clock_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_ADMISSION_H_
