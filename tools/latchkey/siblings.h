// Finds the other parts of Latchkey from where this program lies.
#ifndef TOOLS_LATCHKEY_SIBLINGS_H_
#define TOOLS_LATCHKEY_SIBLINGS_H_

#include <string>

#include "tools/latchkey/refusal.h"

namespace latchkey::tool {

// Returns the absolute path of liblatchkey.so, checked to be a readable shared object that
// LD_PRELOAD can name: beside this program, as installed or as built. LATCHKEY_SHIM names another,
// unless this program itself runs with privileges its caller has not (AT_SECURE).
Outcome<std::string> FindShim();

// Returns the absolute path of latchkeyd, installed or built.
Outcome<std::string> FindBroker();

// getenv, but null under AT_SECURE and for an empty value.
const char* TrustedEnvironment(const char* name);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_SIBLINGS_H_
