#include "tools/latchkey/find_latch.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

int Show(const QueryOptions& options) {
  const auto found = FindLatch(options.socket, options.id);
  if (!found) return Report(found.error());
  return Print(options.json ? ShowJson(found->latch) : ShowText(found->latch));
}

}  // namespace latchkey::tool
