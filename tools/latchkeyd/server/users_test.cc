// Users and groups by files of our own making.
#include "tools/latchkeyd/server/users.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace latchkey::broker {
namespace {

using policy::Grant;
using policy::Grants;
using policy::GrantTo;

Grants One(Grant grant) {
  Grants grants;
  grants.Add(grant);
  return grants;
}

struct Files {
  std::string directory;
  Files() {
    char name[] = "/tmp/users_test.XXXXXX";
    directory = mkdtemp(name);
    std::ofstream(directory + "/passwd") << "root:x:0:0::/root:/bin/sh\n"
                                            "alice:x:1000:100::/:/bin/sh\n"
                                            "bob:x:1001:101::/:/bin/sh\n"
                                            "alice:x:1002:101::/:/bin/sh\n";
    std::ofstream(directory + "/group") << "users:x:100:\nops:x:200:bob,carol\nlast:x:101:\n";
  }
  ~Files() { std::filesystem::remove_all(directory); }
  Users Make() const { return Users(directory + "/passwd", directory + "/group"); }
};

TEST_CASE("Names and numbers") {
  const Files files;
  const Users users = files.Make();
  CHECK(users.Is("alice", 1000));
  CHECK_FALSE(users.Is("alice", 1002));
  CHECK_FALSE(users.Is("alice", 1001));
  CHECK(users.Is("1001", 1001));
  CHECK(users.Is("4000", 4000));
  CHECK_FALSE(users.Is("", 0));
  CHECK_FALSE(users.Is("mallory", 1000));
  CHECK(users.InGroup("users", 1000));
  CHECK(users.InGroup("100", 1000));
  CHECK(users.InGroup("ops", 1001));
  CHECK(users.InGroup("200", 1001));
  CHECK(users.InGroup("last", 1001));
  CHECK_FALSE(users.InGroup("ops", 1000));
  CHECK_FALSE(users.InGroup("users", 1001));
  CHECK_FALSE(users.InGroup("ops", 4000));
  CHECK_FALSE(users.InGroup("none", 1000));
  CHECK_FALSE(Users("/nonexistent", "/nonexistent").Is("root", 0));
}

TEST_CASE("Grants add up; root has them all, nobody any by being unknown") {
  const Files files;
  const Users users = files.Make();
  const std::vector<GrantTo> grants = {
      {GrantTo::Whom::kUser, "alice", One(Grant::kBypass)},
      {GrantTo::Whom::kGroup, "ops", One(Grant::kWeaken)},
  };
  CHECK(users.GrantsOf(grants, 0) == Grants::All());
  CHECK(users.GrantsOf(grants, 1000) == One(Grant::kBypass));
  CHECK(users.GrantsOf(grants, 1001) == One(Grant::kWeaken));
  CHECK(users.GrantsOf(grants, 4000).None());
  CHECK(users.GrantsOf({}, 1000).None());
  std::vector<GrantTo> more = grants;
  more.push_back({GrantTo::Whom::kEverybody, "*", One(Grant::kOverrideDiscard)});
  CHECK(users.GrantsOf(more, 4000) == One(Grant::kOverrideDiscard));
  CHECK(users.GrantsOf(more, 1001).Has(Grant::kWeaken));
  CHECK(users.GrantsOf(more, 1001).Has(Grant::kOverrideDiscard));
}

}  // namespace
}  // namespace latchkey::broker
