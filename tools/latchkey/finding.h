// What `latchkey doctor` finds: one line each.
#ifndef TOOLS_LATCHKEY_FINDING_H_
#define TOOLS_LATCHKEY_FINDING_H_

#include <string>
#include <vector>

namespace latchkey::tool {

struct Finding {
  enum class Kind {
    kOk,
    kBad,   // something does not work, or not as it should
    kNote,  // what to know: advice, or what could not be looked at
  };
  Kind kind = Kind::kOk;
  std::string text;
  std::string todo;  // what to do about it: always with kBad

  bool operator==(const Finding&) const = default;
};

using Findings = std::vector<Finding>;

Finding Ok(std::string text);
Finding Bad(std::string text, std::string todo);
Finding Note(std::string text, std::string todo = {});

// Returns "ok    TEXT", "BAD   TEXT: TODO", "note  TEXT" or "note  TEXT: TODO", a line each. Names
// of files and peers in them are made fit for a terminal; a text of several lines becomes one.
std::string FindingsText(const Findings& findings);

bool AnyBad(const Findings& findings);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_FINDING_H_
