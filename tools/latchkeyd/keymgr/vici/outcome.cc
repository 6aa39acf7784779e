#include "tools/latchkeyd/keymgr/vici/outcome.h"

namespace latchkey::broker::vici {
namespace {

constexpr size_t kMostText = 200;

// How a line begins and ends.
struct Telling {
  std::string_view begin;
  std::string_view end;
  Reason reason;
};

constexpr Telling kTelling[] = {
    // The peer has proved to be somebody, who is not the one that is configured.
    {"constraint check failed: identity '", "", Reason::kPeerMismatch},
    {"constraint check failed: EAP identity '", "", Reason::kPeerMismatch},
    {"constraint check failed: no EAP identity required", "", Reason::kPeerMismatch},
    {"constraint check failed: certificate does not confirm identity '", "", Reason::kPeerMismatch},
    {"IDir '", "", Reason::kPeerMismatch},

    // The peer's proof, or ours, does not hold.
    {"received AUTHENTICATION_FAILED ", "", Reason::kAuthFailed},
    {"constraint check failed: ", "", Reason::kAuthFailed},
    {"constraint requires ", "", Reason::kAuthFailed},
    {"no trusted ", "", Reason::kAuthFailed},
    {"tried ", "but MAC mismatched", Reason::kAuthFailed},
    {"no shared key found for ", "", Reason::kAuthFailed},
    {"no private key found for ", "", Reason::kAuthFailed},
    {"signature validation failed", "", Reason::kAuthFailed},
    {"authentication of '", "' (myself) failed", Reason::kAuthFailed},
    {"received EAP_FAILURE", "", Reason::kAuthFailed},
    {"no alternative config found", "", Reason::kAuthFailed},

    // No agreement about suites or traffic.
    {"received NO_PROPOSAL_CHOSEN ", "", Reason::kNoProposal},
    {"received TS_UNACCEPTABLE ", "", Reason::kNoProposal},
    {"received INVALID_SELECTORS ", "", Reason::kNoProposal},
    {"received SINGLE_PAIR_REQUIRED ", "", Reason::kNoProposal},
    {"no acceptable proposal found", "", Reason::kNoProposal},
    {"no acceptable traffic selectors found", "", Reason::kNoProposal},
    {"received proposals unacceptable", "", Reason::kNoProposal},

    // Nowhere to send to.
    {"unable to resolve ", ", initiate aborted", Reason::kNoChild},

    {"giving up after ", " retransmits", Reason::kAcquireTimeout},
    {"establishing IKE_SA failed, peer not responding", "", Reason::kAcquireTimeout},
    {"peer not responding, trying again", "", Reason::kAcquireTimeout},

    // Whatever else the peer or the kernel refuses.
    {"unable to install ", " in kernel", Reason::kNoSa},
    {"received ", " notify, no CHILD_SA built", Reason::kNoSa},
    {"received ", " notify error", Reason::kNoSa},
    {"received ", " error notify", Reason::kNoSa},
};

bool Tells(const Telling& telling, std::string_view line) {
  if (!line.starts_with(telling.begin)) return false;
  line.remove_prefix(telling.begin.size());
  if (!line.ends_with(telling.end)) return false;
  if (telling.begin != "received " || telling.end.empty()) return true;
  // Any notification: one word. Names of peers come after quotes, or more words.
  line.remove_suffix(telling.end.size());
  return line.find_first_of(" '\"") == std::string_view::npos;
}

// The higher the sooner it decides.
int RankOf(Reason reason) {
  switch (reason) {
    case Reason::kPeerMismatch:
      return 6;
    case Reason::kAuthFailed:
      return 5;
    case Reason::kNoProposal:
      return 4;
    case Reason::kNoChild:
      return 3;
    case Reason::kAcquireTimeout:
      return 2;
    default:
      return 1;
  }
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

std::string Quoted(std::string_view text) {
  std::string quoted;
  for (const char c : text.substr(0, kMostText)) {
    quoted += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  while (quoted.ends_with(' ')) quoted.pop_back();
  if (text.size() > kMostText) quoted += "...";
  return quoted;
}

bool SaysPeerDead(const LogLine& line) {
  const std::string_view text = line.text;
  if (text.starts_with("giving up after ")) {
    return text.ends_with(" retransmits") || text.ends_with(" path probings");
  }
  return text == "DPD check timed out, enforcing DPD action";
}

void Outcome::Hear(const LogLine& line) {
  for (const Telling& telling : kTelling) {
    if (!Tells(telling, line.text)) continue;
    const int rank = RankOf(telling.reason);
    if (rank > rank_) {
      rank_ = rank;
      reason_ = telling.reason;
      line_ = line.text;
    }
    return;
  }
}

Error Outcome::Judge(std::string_view errmsg) const {
  Error error{"negotiate", '"' + Quoted(line_) + '"', reason_};
  if (rank_ > 0) return error;
  error.value = errmsg.empty() ? "charon does not say why" : '"' + Quoted(errmsg) + '"';
  error.reason = Reason::kNoSa;
  // The names of configurations stand within these lines, and are the administrator's.
  if (errmsg.ends_with("' not found")) error.reason = Reason::kNoChild;
  if (Contains(errmsg, "' not established after ")) error.reason = Reason::kAcquireTimeout;
  return error;
}

}  // namespace latchkey::broker::vici
