// Who a user number is, by /etc/passwd and /etc/group alone: the broker asks no directory service,
// which could take its time, or be the client's. Users that are elsewhere are named by number.
#ifndef TOOLS_LATCHKEYD_SERVER_USERS_H_
#define TOOLS_LATCHKEYD_SERVER_USERS_H_

#include <cstdint>
#include <string>

#include "policy/grants.h"
#include "policy/system_policy.h"

namespace latchkey::broker {

class Users {
 public:
  explicit Users(std::string passwd = "/etc/passwd", std::string group = "/etc/group")
      : passwd_(std::move(passwd)), group_(std::move(group)) {}

  // True when `name`, a name or a number, is that of `uid`.
  bool Is(const std::string& name, uint32_t uid) const;
  // True when `uid` belongs to the group `name`, a name or a number: as its first or by its list.
  bool InGroup(const std::string& name, uint32_t uid) const;

  // Returns what `grants` give to `uid`; all of them to root.
  policy::Grants GrantsOf(const std::vector<policy::GrantTo>& grants, uint32_t uid) const;

 private:
  std::string passwd_;
  std::string group_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_USERS_H_
