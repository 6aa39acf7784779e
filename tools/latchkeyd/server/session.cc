#include "tools/latchkeyd/server/session.h"

#include <sodium.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

#include "policy/compile.h"
#include "shim/wire/messages.h"

namespace latchkey::broker {

std::string TokenText(const uint8_t* token) {
  std::string text(2 * wire::kTokenSize + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), token, wire::kTokenSize);
  text.pop_back();
  return text;
}

Result<Session*> SessionTable::Put(const SessionRecord& record, bool fresh) {
  Result<Admitted> admitted = admission_.Admit(record, fresh);
  if (!admitted) return std::unexpected(admitted.error());
  const policy::Policy& policy = *admitted->policy;
  const uint64_t id = record.id;
  if (sessions_.contains(id)) return Fail(Reason::kBadRequest, "make session", "its id is in use");
  Result<PageFile> page = fresh ? PageFile::Make(PagePath(id), policy, System().get())
                                : PageFile::Reopen(PagePath(id), policy, System().get());
  if (!page) return std::unexpected(page.error());
  page->page().guard_mark.store(guard_mark_);
  auto [it, added] = sessions_.try_emplace(id, record, admitted->policy, std::move(*page));
  it->second.signer_grants = admitted->signer;
  return &it->second;
}

bool SessionTable::HasRoom(uint32_t uid) const {
  const auto same_user = std::ranges::count_if(
      sessions_, [uid](const auto& each) { return each.second.record.uid == uid; });
  return static_cast<size_t>(same_user) < (uid == 0 ? limits_.of_root : limits_.per_user);
}

Result<Session*> SessionTable::Make(SessionRecord record) {
  if (!HasRoom(record.uid)) {
    return Fail(Reason::kLimit, "make session", "too many sessions of one user");
  }
  std::array<uint8_t, wire::kTokenSize> token{};
  if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
    return Fail(Reason::kKernelRefused, "make session", "no random numbers");
  }
  record.id = next_id_++;
  record.token = TokenText(token.data());
  return Put(record, /*fresh=*/true);
}

Result<Session*> SessionTable::Restore(const SessionRecord& record) {
  next_id_ = std::max(next_id_, record.id + 1);
  if (record.token.size() != 2 * wire::kTokenSize) {
    return Fail(Reason::kBadRequest, "restore session", "its token is damaged");
  }
  return Put(record, /*fresh=*/false);
}

std::unique_ptr<policy::System> SessionTable::System() const {
  if (spd_ == nullptr) return nullptr;
  return std::make_unique<policy::System>(policy::System{admission_.system(), *spd_});
}

void SessionTable::UseSpd(const std::vector<SpdEntry>& spd) {
  spd_ = &spd;
  for (auto& [id, session] : sessions_) {
    policy::CompileInto(*session.policy, System().get(), session.page.page());
  }
}

policy::Grants SessionTable::GrantsOf(Session& session, uint32_t uid) const {
  policy::Grants grants = OwnGrantsOf(session, uid);
  grants.Add(session.signer_grants);
  return grants;
}

policy::Grants SessionTable::OwnGrantsOf(Session& session, uint32_t uid) const {
  auto [it, fresh] = session.user_grants.try_emplace(uid);
  if (fresh) it->second = admission_.GrantsOf(uid);
  policy::Grants grants = it->second;
  // The lesser of two authorities: who became root later does not speak with root's.
  if (uid == 0 && session.record.uid != 0) grants = {};
  return grants;
}

Session* SessionTable::Find(uint64_t id) {
  auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : &it->second;
}

Session* SessionTable::FindByToken(const uint8_t* token) {
  const std::string text = TokenText(token);
  Session* found = nullptr;
  for (auto& [id, session] : sessions_) {
    if (session.record.token.size() == text.size() &&
        sodium_memcmp(session.record.token.data(), text.data(), text.size()) == 0) {
      found = &session;
    }
  }
  return found;
}

void SessionTable::Remove(uint64_t id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  it->second.page.Unlink();
  sessions_.erase(it);
}

void SessionTable::RemoveStrays() const {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(pages_, error)) {
    const std::string name = file.path().filename().string();
    uint64_t id = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), id);
    const bool ours = bad == std::errc() && end == name.data() + name.size();
    if (ours && !sessions_.contains(id)) unlink(file.path().c_str());
  }
}

}  // namespace latchkey::broker
