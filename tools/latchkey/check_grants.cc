#include "tools/latchkey/check_grants.h"

#include <pwd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <utility>

#include "policy/signature.h"
#include "policy/system_parse.h"
#include "tools/latchkeyd/server/users.h"

namespace latchkey::tool {
namespace {

using policy::Grant;
using policy::SystemPolicy;

std::optional<std::string> ReadFile(const std::string& name) {
  std::ifstream file(name, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) return std::nullopt;
  return text;
}

bool SignerMayBypass(const SystemPolicy& system, const PolicyFile& file) {
  if (!file.signature) return false;
  const auto text = ReadFile(file.name);
  const auto beside = ReadFile(file.name + ".minisig");
  if (!text || !beside) return false;
  const auto signature = policy::ReadSignature(*beside);
  if (!signature) return false;
  return std::ranges::any_of(system.signers, [&](const policy::Signer& signer) {
    const auto key = policy::PublicKey::FromBase64(signer.key);
    const auto& names = signer.applications;
    const bool for_it =
        names.empty() || std::ranges::find(names, file.policy.application) != names.end();
    return signer.grants.Has(Grant::kBypass) && for_it && key && key->id == signature->id &&
           policy::Verify(*text, *signature, *key);
  });
}

std::optional<uint32_t> NumberOf(const std::string& user) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), number);
  if (error == std::errc{} && end == user.data() + user.size()) return number;
  const passwd* entry = getpwnam(user.c_str());
  return entry == nullptr ? std::nullopt : std::optional<uint32_t>(entry->pw_uid);
}

bool UsersMayBypass(const SystemPolicy& system, const std::vector<std::string>& users) {
  if (users.empty()) {
    return std::ranges::any_of(system.grants, [](const policy::GrantTo& grant) {
      return grant.whom == policy::GrantTo::Whom::kEverybody && grant.grants.Has(Grant::kBypass);
    });
  }
  return std::ranges::all_of(users, [&](const std::string& user) {
    const auto number = NumberOf(user);
    return number && broker::Users().GrantsOf(system.grants, *number).Has(Grant::kBypass);
  });
}

}  // namespace

std::optional<SystemPolicy> ReadSystem(const std::string& name) {
  const auto text = ReadFile(name);
  if (!text) return std::nullopt;
  auto parsed = policy::ParseSystem(*text, name);
  if (!parsed) return std::nullopt;
  return std::move(*parsed);
}

policy::LintFacts FactsOf(const PolicyFile& file, const std::string& system) {
  policy::LintFacts facts;
  facts.is_signed = static_cast<bool>(file.signature);
  facts.system = system;
  const auto parsed = ReadSystem(system);
  if (!parsed) return facts;
  facts.may_bypass = SignerMayBypass(*parsed, file) || UsersMayBypass(*parsed, file.policy.users);
  return facts;
}

}  // namespace latchkey::tool
