#include "tools/latchkeyd/keymgr/vici/own.h"

#include <algorithm>
#include <ranges>
#include <span>

namespace latchkey::broker::vici {
namespace {

constexpr std::string_view kPrefix = "latchkey-";
// So many more would only make the first message longer.
constexpr size_t kMostProposals = 32;
// charon takes an IKE_SA that is there for a new child if their configurations are the same in all
// but the name. An IKE_SA of a flow's own ends with the flow, so none may be: they differ in how
// much later than their rekeying they end, in seconds.
constexpr uint32_t kOverTime = 1'200;
constexpr uint32_t kOverSpread = 1'000'000;

// AH's keyword of an integrity is the same as ESP's.
std::string Proposal(const policy::Algorithm& algorithm, bool esn) {
  std::string text;
  if (algorithm.encryption != nullptr) {
    text = policy::SwanKeyword(*algorithm.encryption, algorithm.key_bits);
  }
  if (algorithm.integrity != nullptr) {
    if (!text.empty()) text += '-';
    text += policy::SwanKeyword(*algorithm.integrity, 0);
  }
  text += "-x25519-ecp256-modp2048-modpnone";
  if (esn) text += "-esn";
  return text;
}

std::string Selector(const SocketAddress& end, uint8_t protocol) {
  return end.address.ToString() + "/" + std::to_string(end.address.Bits()) + "[" +
         std::to_string(protocol) + "/" + std::to_string(end.port) + "]";
}

// Why an end's authentication cannot be copied; empty: it can.
std::string Obstacle(const std::vector<AuthConfig>& rounds, bool local) {
  const std::string end = local ? "local" : "remote";
  if (rounds.size() != 1) return end + " authentication has not one round";
  const AuthConfig& round = rounds.front();
  if (round.auth != "pubkey" && round.auth != "psk") {
    return end + " authentication is neither by public keys nor pre-shared";
  }
  if (local && round.id.empty()) return "it has no local id";
  if (!round.bound.empty()) {
    return end + " authentication has \"" + round.bound + "\", which charon does not show whole";
  }
  if (!local && round.certs) return "the peer's certificate is given, which charon does not show";
  return {};
}

void AddAuth(Section& conn, const char* name, const AuthConfig& round) {
  Section& section = conn.AddSection(name);
  section.Add("auth", round.auth);
  if (!round.id.empty()) section.Add("id", round.id);
  if (!round.ca_id.empty()) section.Add("ca_id", round.ca_id);
  if (round.revocation == "GOOD") section.Add("revocation", "strict");
  if (round.revocation == "SKIPPED") section.Add("revocation", "ifuri");
}

}  // namespace

std::string FlowText(const Flow& flow) {
  return flow.local.ToString() + "-" + flow.remote.ToString();
}

std::string OwnName(uint32_t number, const Flow& flow) {
  return std::string(kPrefix) + std::to_string(number) + "-" + FlowText(flow);
}

std::optional<std::string> FlowOfOwn(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const size_t dash = name.find('-');
  if (dash == std::string_view::npos || !Decimal(name.substr(0, dash))) return std::nullopt;
  return std::string(name.substr(dash + 1));
}

std::vector<std::string> OwnProposals(const policy::AlgorithmSet& algorithms, bool esn) {
  const std::span<const policy::Algorithm> all = policy::Algorithms();
  std::vector<const policy::Algorithm*> chosen;
  for (size_t i = 0; i < all.size(); ++i) {
    if (algorithms[i] && all[i].protocol == SaProtocol::kEsp) chosen.push_back(&all[i]);
  }
  if (chosen.empty()) {
    for (size_t i = 0; i < all.size(); ++i) {
      if (algorithms[i]) chosen.push_back(&all[i]);
    }
  }
  // The table's order is by kind: within one the longest keys come first.
  std::ranges::stable_sort(chosen, [](const policy::Algorithm* a, const policy::Algorithm* b) {
    return a->encryption == b->encryption && a->key_bits > b->key_bits;
  });
  std::vector<std::string> proposals;
  for (const policy::Algorithm* one : chosen | std::views::take(kMostProposals)) {
    proposals.push_back(Proposal(*one, esn));
  }
  return proposals;
}

Result<Section> OwnConn(const ConnConfig& conn, const ChildConfig& child, const Wanted& wanted,
                        const std::string& name, uint32_t number) {
  const Flow& flow = wanted.flow;
  std::string obstacle;
  if (conn.version == "IKEv1") obstacle = "it is of IKEv1";
  if (conn.has_ppk) obstacle = "it has a post-quantum pre-shared key";
  if (child.mode != Mode::kTransport) obstacle = "charon gives no ports to SAs in tunnel mode";
  if (obstacle.empty()) obstacle = Obstacle(conn.local, /*local=*/true);
  if (obstacle.empty()) obstacle = Obstacle(conn.remote, /*local=*/false);
  const std::vector<std::string> proposals = OwnProposals(wanted.algorithms, wanted.esn);
  if (obstacle.empty() && proposals.empty()) obstacle = "no suite is as asked";
  if (obstacle.empty() && (flow.local.port == 0 || flow.local.address.IsAny())) {
    obstacle = "the flow's own address and port are not known";
  }
  if (!obstacle.empty()) {
    return Fail(Reason::kNoChild, "make an IKE child of the flow's own",
                "not after connection \"" + conn.name + "\": " + obstacle);
  }
  const bool ah = proposals.front().starts_with("sha") ||
                  proposals.front().starts_with("aesxcbc") ||
                  proposals.front().starts_with("aescmac");
  Section message;
  Section& copy = message.AddSection(name);
  copy.Add("version", "2");
  copy.Add("local_addrs", List{flow.local.address.ToString()});
  copy.Add("remote_addrs", List{flow.remote.address.ToString()});
  // With INITIAL_CONTACT the peer would delete what it has with us.
  copy.Add("unique", "never");
  if (!conn.rekey_time.empty()) copy.Add("rekey_time", conn.rekey_time + "s");
  if (!conn.reauth_time.empty()) copy.Add("reauth_time", conn.reauth_time + "s");
  if (!conn.dpd_delay.empty()) copy.Add("dpd_delay", conn.dpd_delay + "s");
  copy.Add("over_time", std::to_string(kOverTime + number % kOverSpread) + "s");
  AddAuth(copy, "local", conn.local.front());
  AddAuth(copy, "remote", conn.remote.front());
  Section& own = copy.AddSection("children").AddSection(name);
  own.Add("mode", "transport");
  own.Add("local_ts", List{Selector(flow.local, flow.protocol)});
  own.Add("remote_ts", List{Selector(flow.remote, flow.protocol)});
  own.Add(ah ? "ah_proposals" : "esp_proposals", proposals);
  if (!child.rekey_time.empty()) own.Add("rekey_time", child.rekey_time + "s");
  return message;
}

}  // namespace latchkey::broker::vici
