// The key manager, as `latchkey doctor` sees it: charon and its children.
#ifndef TOOLS_LATCHKEY_DOCTOR_KEYS_H_
#define TOOLS_LATCHKEY_DOCTOR_KEYS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

// A child of charon's configuration, with the reqids of its live SAs.
struct ChildFacts {
  std::string connection;
  std::string name;
  std::vector<uint32_t> reqids;  // empty: none is up
};

struct KeyManagerFacts {
  std::string socket = "/run/charon.vici";
  int error = 0;        // errno of connecting to it
  bool listed = false;  // `children` holds what it has
  std::vector<ChildFacts> children;
};

// Connects to the socket, and says nothing on it.
KeyManagerFacts ReachKeyManager(const std::string& socket);

Findings KeyManagerFindings(const KeyManagerFacts& facts);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_KEYS_H_
