// What charon says of itself over its VICI socket, asked once: its configurations and its SAs.
#ifndef TOOLS_LATCHKEY_CHARON_LISTS_H_
#define TOOLS_LATCHKEY_CHARON_LISTS_H_

#include <chrono>
#include <string>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/vici/conns.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"

namespace latchkey::tool {

inline constexpr char kViciSocket[] = "/run/charon.vici";

struct CharonLists {
  std::vector<broker::vici::ConnConfig> conns;
  std::vector<broker::vici::IkeSa> sas;
};

// Errors: no-sa where there is no socket (keys are then manual), km-lost where charon does not say
// all of it in time.
Result<CharonLists> ListCharon(const std::string& socket, std::chrono::milliseconds patience);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_CHARON_LISTS_H_
