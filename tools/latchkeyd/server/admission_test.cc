// Which policies may be used: signatures, serials, users, last days.
#include "tools/latchkeyd/server/admission.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "policy/signature.h"

namespace latchkey::broker {
namespace {

using policy::Grant;

struct Rig {
  std::string directory;
  policy::SecretKey key = policy::SecretKey::Generate().value();
  std::chrono::sys_seconds now = std::chrono::sys_days(std::chrono::year(2026) / 6 / 30);
  std::shared_ptr<policy::SystemPolicy> system = std::make_shared<policy::SystemPolicy>();

  Rig() {
    char name[] = "/tmp/admission_test.XXXXXX";
    directory = mkdtemp(name);
    std::ofstream(directory + "/passwd") << "alice:x:1000:100::/:/bin/sh\n";
    policy::Signer signer;
    signer.key = key.Public().ToBase64();
    signer.grants.Add(Grant::kBypass);
    system->signers.push_back(signer);
  }
  ~Rig() { std::filesystem::remove_all(directory); }

  Admission Make() const {
    return Admission(system, directory + "/state",
                     Users(directory + "/passwd", directory + "/group"), [this] { return now; });
  }
  SessionRecord Record(const std::string& more = "") const {
    SessionRecord record;
    record.uid = 1000;
    record.program = "/bin/app";
    record.policy_name = "app.toml";
    record.has_policy = true;
    record.policy_text = "latchkey = 1\napplication = \"app\"\n" + more;
    return record;
  }
  SessionRecord Signed(const std::string& more = "") const {
    SessionRecord record = Record(more);
    record.signature = key.Sign(record.policy_text, "c").value();
    return record;
  }
  Reason Ask(const SessionRecord& record, bool fresh = true) const {
    const Result<Admitted> admitted = Make().Admit(record, fresh);
    return admitted ? Reason::kNone : admitted.error().reason;
  }
};

TEST_CASE("A signer's grants come with a signature, and only then") {
  const Rig rig;
  const Result<Admitted> by_hand = rig.Make().Admit(rig.Record(), true);
  REQUIRE(by_hand);
  CHECK(by_hand->signer.None());
  const Result<Admitted> by_signer = rig.Make().Admit(rig.Signed(), true);
  REQUIRE(by_signer);
  CHECK(by_signer->signer.Has(Grant::kBypass));
  CHECK_FALSE(by_signer->signer.Has(Grant::kWeaken));
  CHECK(rig.Ask(SessionRecord{}) == Reason::kNone);
}

TEST_CASE("A wrong signature is worse than none") {
  const Rig rig;
  SessionRecord changed = rig.Signed();
  changed.policy_text += " ";
  CHECK(rig.Ask(changed) == Reason::kBadSignature);
  SessionRecord garbage = rig.Record();
  garbage.signature = "garbage";
  CHECK(rig.Ask(garbage) == Reason::kBadSignature);
  SessionRecord stranger = rig.Record();
  stranger.signature =
      policy::SecretKey::Generate().value().Sign(stranger.policy_text, "c").value();
  CHECK(rig.Ask(stranger) == Reason::kBadSignature);
  // Nothing parses what a wrong signature comes with.
  SessionRecord both = rig.Signed("nonsense = 1\n");
  both.policy_text += "more = 1\n";
  CHECK(rig.Ask(both) == Reason::kBadSignature);
  CHECK(rig.Ask(rig.Signed("nonsense = 1\n")) == Reason::kBadPolicy);
  rig.system->signers[0].applications = {"other"};
  CHECK(rig.Ask(rig.Signed()) == Reason::kBadSignature);
  rig.system->signers[0].applications = {"other", "app"};
  CHECK(rig.Ask(rig.Signed()) == Reason::kNone);
}

TEST_CASE("Serials never go back, for signed policies") {
  const Rig rig;
  CHECK(rig.Ask(rig.Signed("serial = 7\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Signed("serial = 7\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Signed("serial = 6\n")) == Reason::kPolicyRollback);
  CHECK(rig.Ask(rig.Signed()) == Reason::kPolicyRollback);
  CHECK(rig.Ask(rig.Record("serial = 6\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Record("serial = 100\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Signed("serial = 8\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Signed("serial = 7\n")) == Reason::kPolicyRollback);
  // A session that was there before goes on.
  CHECK(rig.Ask(rig.Signed("serial = 7\n"), /*fresh=*/false) == Reason::kNone);
  // What was seen is not known any more: nothing may be older than that.
  std::ofstream(rig.directory + "/state/serials") << "{";
  CHECK(rig.Ask(rig.Signed("serial = 9\n")) == Reason::kKernelRefused);
}

TEST_CASE("Users, programs, last days") {
  Rig rig;
  CHECK(rig.Ask(rig.Record("users = [\"alice\"]\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Record("users = [7, 1000]\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Record("users = [\"bob\", 7]\n")) == Reason::kBadPolicy);
  CHECK(rig.Ask(rig.Record("program = [\"/bin/app\"]\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Record("program = [\"/bin/other\"]\n")) == Reason::kBadPolicy);
  CHECK(rig.Ask(rig.Record("not_after = 2026-06-30\n")) == Reason::kNone);
  CHECK(rig.Ask(rig.Record("not_after = 2026-06-29\n")) == Reason::kPolicyExpired);
  rig.now += std::chrono::hours(24) - std::chrono::seconds(1);
  CHECK(rig.Ask(rig.Record("not_after = 2026-06-30\n")) == Reason::kNone);
  rig.now += std::chrono::seconds(1);
  CHECK(rig.Ask(rig.Record("not_after = 2026-06-30\n")) == Reason::kPolicyExpired);
  CHECK(rig.Ask(rig.Record("not_after = 2026-06-30\n"), /*fresh=*/false) == Reason::kNone);
}

}  // namespace
}  // namespace latchkey::broker
