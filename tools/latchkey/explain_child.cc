#include "tools/latchkey/explain_child.h"

#include <algorithm>
#include <optional>
#include <string>

#include "tools/latchkeyd/keymgr/vici/own.h"

namespace latchkey::tool {
namespace {

namespace vici = broker::vici;

// A port that the kernel may give to a flow whose own is not known: of an SA of its own, the rest
// of what would be asked can be judged with it.
constexpr uint16_t kSomePort = 40'000;

}  // namespace

Result<vici::Choice> ChildFor(const CharonLists& charon, const Flow& flow,
                              const policy::Verdict& verdict) {
  vici::Wanted wanted = vici::WantedFor(
      flow, verdict.rule != nullptr ? verdict.rule->child : std::string(), verdict.demand);
  const auto sole_peer = [&charon](const std::string& ike) -> std::optional<Address> {
    std::optional<Address> sole;
    for (const vici::IkeSa& sa : charon.sas) {
      if (sa.name != ike || sa.state != "ESTABLISHED") continue;
      if (sole && *sole != sa.remote.address) return std::nullopt;
      sole = sa.remote.address;
    }
    return sole;
  };
  Result<vici::Choice> choice = vici::Choose(charon.conns, wanted, sole_peer);
  if (!choice || !wanted.unique) return choice;
  if (wanted.flow.local.port == 0) wanted.flow.local.port = kSomePort;
  const auto conn = std::ranges::find(charon.conns, choice->ike, &vici::ConnConfig::name);
  const auto child = std::ranges::find(conn->children, choice->child, &vici::ChildConfig::name);
  const Result<vici::Section> own =
      vici::OwnConn(*conn, *child, wanted, vici::OwnName(1, wanted.flow), 1);
  if (!own) return std::unexpected(own.error());
  return choice;
}

}  // namespace latchkey::tool
