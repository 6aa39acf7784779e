#include "tools/latchkeyd/server/admission.h"

#include <algorithm>
#include <utility>

#include "policy/parse.h"
#include "policy/signature.h"

namespace latchkey::broker {
namespace {

Result<policy::Policy> ParsePolicy(const SessionRecord& record) {
  auto parsed = policy::Parse(record.policy_text, record.policy_name);
  if (parsed) return std::move(*parsed);
  std::string lines;
  for (const policy::ParseError& error : parsed.error()) {
    lines += (lines.empty() ? "" : "\n") + error.ToString();
  }
  return Fail(Reason::kBadPolicy, "read policy", lines);
}

}  // namespace

std::chrono::sys_seconds Admission::Now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

Admission::Admission(std::shared_ptr<const policy::SystemPolicy> system, std::string state,
                     Users users, Clock clock)
    : system_(std::move(system)),
      serials_(std::move(state)),
      users_(std::move(users)),
      clock_(std::move(clock)) {}

Result<policy::Grants> Admission::CheckSignature(const SessionRecord& record,
                                                 const policy::Signer** signer) const {
  Result<policy::Signature> signature = policy::ReadSignature(record.signature);
  if (!signature) {
    Error error = signature.error();
    error.value = record.policy_name + ".minisig: " + error.value;
    return std::unexpected(error);
  }
  Error last{"verify signature", record.policy_name + ": signed by a key that system.toml lacks",
             Reason::kBadSignature};
  for (const policy::Signer& each : system_->signers) {
    const std::optional<policy::PublicKey> key = policy::PublicKey::FromBase64(each.key);
    if (!key || key->id != signature->id) continue;
    if (Result<void> done = policy::Verify(record.policy_text, *signature, *key); !done) {
      last.value = record.policy_name + ": " + done.error().value;
      continue;
    }
    *signer = &each;
    return each.grants;
  }
  return std::unexpected(last);
}

Result<Admitted> Admission::Admit(const SessionRecord& record, bool fresh) const {
  if (!record.has_policy) return Admitted{std::make_shared<const policy::Policy>(), {}};
  const policy::Signer* signer = nullptr;
  Admitted admitted;
  if (!record.signature.empty()) {
    Result<policy::Grants> grants = CheckSignature(record, &signer);
    if (!grants) return std::unexpected(grants.error());
    admitted.signer = *grants;
  }
  Result<policy::Policy> policy = ParsePolicy(record);
  if (!policy) return std::unexpected(policy.error());
  const std::string& name = record.policy_name;
  const auto refuse = [&](Reason reason, const std::string& why) {
    return Fail(reason, "read policy", name + ": " + why);
  };
  if (signer != nullptr && !signer->applications.empty() &&
      std::ranges::find(signer->applications, policy->application) == signer->applications.end()) {
    return refuse(Reason::kBadSignature,
                  "its signer may not sign for \"" + policy->application + "\"");
  }
  if (!policy->program.empty() &&
      std::ranges::find(policy->program, record.program) == policy->program.end()) {
    return refuse(Reason::kBadPolicy, "not a policy for \"" + record.program + "\"");
  }
  if (!policy->users.empty() && std::ranges::none_of(policy->users, [&](const std::string& user) {
        return users_.Is(user, record.uid);
      })) {
    return refuse(Reason::kBadPolicy, "not a policy for user " + std::to_string(record.uid));
  }
  if (fresh && policy->not_after &&
      clock_() >= std::chrono::sys_days(*policy->not_after) + std::chrono::days(1)) {
    return refuse(Reason::kPolicyExpired, "its last day (not_after) is over");
  }
  // What nobody signed could as well say any serial.
  if (fresh && signer != nullptr) {
    if (Result<void> used = serials_.Use(policy->application, policy->serial); !used) {
      return refuse(used.error().reason, used.error().value);
    }
  }
  admitted.policy = std::make_shared<const policy::Policy>(std::move(*policy));
  return admitted;
}

}  // namespace latchkey::broker
