// Latches for people: the table of `list` and the lines of `show`.
#ifndef TOOLS_LATCHKEY_LATCH_TABLE_H_
#define TOOLS_LATCHKEY_LATCH_TABLE_H_

#include <string>
#include <string_view>
#include <vector>

#include "policy/model/latch.h"

namespace latchkey::tool {

// Returns a heading and one line per latch, columns aligned, "-" for what is absent.
std::string ListTable(const std::vector<Latch>& latches);

// Returns "name: value" lines, one for each field of the JSON document.
std::string ShowText(const Latch& latch);

// Returns `text` fit for a terminal: control and direction-changing characters, octets that are no
// UTF-8 and backslashes as \n, \t, \\ or \xNN per octet. Names of programs and peers are other
// people's.
std::string Printable(std::string_view text);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_LATCH_TABLE_H_
