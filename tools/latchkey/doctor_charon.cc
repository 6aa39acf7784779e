#include "tools/latchkey/doctor_charon.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "tools/latchkey/charon_lists.h"

namespace latchkey::tool {

void ListChildren(KeyManagerFacts& facts, std::chrono::milliseconds patience) {
  const auto lists = ListCharon(facts.socket, patience);
  if (!lists) return;
  std::vector<ChildFacts> children;
  for (const broker::vici::ConnConfig& conn : lists->conns) {
    for (const broker::vici::ChildConfig& child : conn.children) {
      if (child.mode != Mode::kUnknown) children.push_back({conn.name, child.name, {}});
    }
  }
  for (const broker::vici::IkeSa& ike : lists->sas) {
    for (const broker::vici::ChildSa& up : ike.children) {
      // charon puts a child under another connection's IKE_SA where that is just as good.
      auto child = std::ranges::find(children, up.name, &ChildFacts::name);
      if (std::ranges::count(children, up.name, &ChildFacts::name) > 1) {
        child = std::ranges::find_if(children, [&](const ChildFacts& each) {
          return each.connection == ike.name && each.name == up.name;
        });
      }
      if (child != children.end() &&
          std::ranges::find(child->reqids, up.reqid) == child->reqids.end()) {
        child->reqids.push_back(up.reqid);
      }
    }
  }
  facts.listed = true;
  facts.children = std::move(children);
}

}  // namespace latchkey::tool
