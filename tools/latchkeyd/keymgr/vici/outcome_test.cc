#include "tools/latchkeyd/keymgr/vici/outcome.h"

#include <catch2/catch.hpp>
#include <vector>

namespace latchkey::broker::vici {
namespace {

struct Row {
  const char* line;
  Reason reason;
};

Error Judge(const std::vector<std::string>& lines, const std::string& errmsg = "failed") {
  Outcome outcome;
  for (const std::string& line : lines) outcome.Hear({"IKE", 1, line});
  return outcome.Judge(errmsg);
}

TEST_CASE("charon's lines, of 5.9.8 and of 6.0") {
  for (const Row& row : {
           Row{"constraint check failed: identity 'alice' required ", Reason::kPeerMismatch},
           Row{"constraint check failed: identity 'alice' (FQDN) required, not matched by 'bob' "
               "(FQDN)",
               Reason::kPeerMismatch},
           Row{"constraint check failed: identity 'alice' (FQDN) required", Reason::kPeerMismatch},
           Row{"constraint check failed: EAP identity 'alice' required ", Reason::kPeerMismatch},
           Row{"constraint check failed: certificate does not confirm identity 'alice' (FQDN)",
               Reason::kPeerMismatch},
           Row{"IDir '10.9.0.1' does not match to 'alice'", Reason::kPeerMismatch},
           Row{"received AUTHENTICATION_FAILED notify error", Reason::kAuthFailed},
           Row{"received AUTHENTICATION_FAILED error notify", Reason::kAuthFailed},
           Row{"no trusted ECDSA public key found for 'alice'", Reason::kAuthFailed},
           Row{"signature validation failed, looking for another key", Reason::kAuthFailed},
           Row{"tried 2 shared keys for 'me' - 'alice', but MAC mismatched", Reason::kAuthFailed},
           Row{"no shared key found for 'me' - 'alice'", Reason::kAuthFailed},
           Row{"no private key found for 'me'", Reason::kAuthFailed},
           Row{"authentication of 'me' (myself) failed", Reason::kAuthFailed},
           Row{"constraint requires public key authentication, but pre-shared key was used",
               Reason::kAuthFailed},
           Row{"constraint check failed: peer not authenticated by CA 'CN=ca'",
               Reason::kAuthFailed},
           Row{"received NO_PROPOSAL_CHOSEN notify error", Reason::kNoProposal},
           Row{"received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built", Reason::kNoProposal},
           Row{"received NO_PROPOSAL_CHOSEN error notify", Reason::kNoProposal},
           Row{"received TS_UNACCEPTABLE notify, no CHILD_SA built", Reason::kNoProposal},
           Row{"no acceptable proposal found", Reason::kNoProposal},
           Row{"no acceptable traffic selectors found", Reason::kNoProposal},
           Row{"received proposals unacceptable", Reason::kNoProposal},
           Row{"unable to resolve %any, initiate aborted", Reason::kNoChild},
           Row{"giving up after 5 retransmits", Reason::kAcquireTimeout},
           Row{"establishing IKE_SA failed, peer not responding", Reason::kAcquireTimeout},
           Row{"peer not responding, trying again (2/3)", Reason::kAcquireTimeout},
           Row{"unable to install inbound and outbound IPsec SA (SAD) in kernel", Reason::kNoSa},
           Row{"received NO_ADDITIONAL_SAS notify, no CHILD_SA built", Reason::kNoSa},
           Row{"received INVALID_SYNTAX notify error", Reason::kNoSa},
       }) {
    INFO(row.line);
    const Error error = Judge({"generating IKE_AUTH request 1 [ IDi CERT ]", row.line});
    CHECK(wire::ReasonWord(error.reason) == std::string(wire::ReasonWord(row.reason)));
    CHECK(error.value.starts_with('"' + std::string(row.line).substr(0, 20)));
  }
}

TEST_CASE("The line that tells most decides, whenever it comes") {
  CHECK(Judge({"received AUTHENTICATION_FAILED notify error",
               "constraint check failed: identity 'alice' required "})
            .reason == Reason::kPeerMismatch);
  CHECK(Judge({"peer not responding, trying again (2/3)",
               "received NO_PROPOSAL_CHOSEN notify error", "giving up after 5 retransmits"})
            .reason == Reason::kNoProposal);
  const Error first = Judge({"giving up after 5 retransmits", "giving up after 6 retransmits"});
  CHECK(first.value == "\"giving up after 5 retransmits\"");
}

TEST_CASE("No name that a peer gives itself passes for a line of charon's") {
  for (const char* line : {
           "received end entity cert \"CN=received AUTHENTICATION_FAILED notify error\"",
           "authentication of 'giving up after 5 retransmits' with pre-shared key successful",
           "parsed IKE_AUTH response 1 [ N(NO_PROP) ]",
           "IKE_SA to-alice[1] established between 10.9.0.2[me]...10.9.0.1[IDir ' does not match "
           "to ']",
       }) {
    INFO(line);
    CHECK(Judge({line}).reason == Reason::kNoSa);
    CHECK(Judge({line}).value == "\"failed\"");
  }
}

TEST_CASE("charon's last word, where no line tells") {
  CHECK(Judge({}, "CHILD_SA config 'x' not found").reason == Reason::kNoChild);
  CHECK(Judge({}, "CHILD_SA 'x' not established after 60000ms").reason == Reason::kAcquireTimeout);
  CHECK(Judge({}, "establishing CHILD_SA 'x' failed").reason == Reason::kNoSa);
  CHECK(Judge({}, "").reason == Reason::kNoSa);
  CHECK(Judge({"received NO_PROPOSAL_CHOSEN notify error"},
              "CHILD_SA 'x' not established after 60000ms")
            .reason == Reason::kNoProposal);
}

TEST_CASE("A line for people is one line, and not endless") {
  CHECK(Quoted("a\nb\x1b[1m\x7f ") == "a b [1m");
  CHECK(Quoted(std::string(1000, 'x')) == std::string(200, 'x') + "...");
}

TEST_CASE("A dead peer") {
  const auto dead = [](const char* text) { return SaysPeerDead({"IKE", 1, text}); };
  CHECK(dead("giving up after 5 retransmits"));
  CHECK(dead("giving up after 3 path probings"));
  CHECK(dead("DPD check timed out, enforcing DPD action"));
  CHECK_FALSE(dead("giving up after 3 retries"));
  CHECK_FALSE(dead("sending DPD request"));
  CHECK_FALSE(dead("received DELETE for IKE_SA"));
}

}  // namespace
}  // namespace latchkey::broker::vici
