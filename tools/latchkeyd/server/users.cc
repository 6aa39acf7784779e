#include "tools/latchkeyd/server/users.h"

#include <grp.h>
#include <pwd.h>

#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace latchkey::broker {
namespace {

constexpr size_t kLongestLine = 65'536;

struct CloseFile {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, CloseFile>;

File Open(const std::string& path) { return File(fopen(path.c_str(), "re")); }

std::optional<uint32_t> Number(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  if (error != std::errc{} || end != text.end()) return std::nullopt;
  return number;
}

// Calls `each` with every line until it returns true.
template <typename Each>
void EachUser(const std::string& path, const Each& each) {
  const File file = Open(path);
  std::vector<char> buffer(kLongestLine);
  passwd line{};
  passwd* found = nullptr;
  while (file && fgetpwent_r(file.get(), &line, buffer.data(), buffer.size(), &found) == 0) {
    if (each(line)) return;
  }
}

}  // namespace

bool Users::Is(const std::string& name, uint32_t uid) const {
  if (const std::optional<uint32_t> number = Number(name)) return *number == uid;
  bool same = false;
  EachUser(passwd_, [&](const passwd& user) {
    if (name != user.pw_name) return false;
    same = user.pw_uid == uid;
    return true;  // the first of a name holds, as everywhere
  });
  return same;
}

bool Users::InGroup(const std::string& name, uint32_t uid) const {
  std::vector<std::string> names;
  std::optional<uint32_t> first;
  EachUser(passwd_, [&](const passwd& user) {
    if (user.pw_uid != uid) return false;
    names.emplace_back(user.pw_name);
    if (!first) first = user.pw_gid;
    return false;
  });
  const std::optional<uint32_t> wanted = Number(name);
  if (wanted && first == wanted) return true;
  const File file = Open(group_);
  std::vector<char> buffer(kLongestLine);
  group line{};
  group* found = nullptr;
  while (file && fgetgrent_r(file.get(), &line, buffer.data(), buffer.size(), &found) == 0) {
    if (wanted ? line.gr_gid != *wanted : name != line.gr_name) continue;
    if (first == line.gr_gid) return true;
    for (char** member = line.gr_mem; *member != nullptr; ++member) {
      for (const std::string& mine : names) {
        if (mine == *member) return true;
      }
    }
    return false;
  }
  return false;
}

policy::Grants Users::GrantsOf(const std::vector<policy::GrantTo>& grants, uint32_t uid) const {
  if (uid == 0) return policy::Grants::All();
  policy::Grants mine;
  for (const policy::GrantTo& grant : grants) {
    bool fits = false;
    switch (grant.whom) {
      case policy::GrantTo::Whom::kUser:
        fits = Is(grant.name, uid);
        break;
      case policy::GrantTo::Whom::kGroup:
        fits = InGroup(grant.name, uid);
        break;
      case policy::GrantTo::Whom::kEverybody:
        fits = true;
        break;
    }
    if (fits) mine.Add(grant.grants);
  }
  return mine;
}

}  // namespace latchkey::broker
