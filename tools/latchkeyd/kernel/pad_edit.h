// Adds entries to /etc/latchkey/pad.toml and takes them out again, for `latchkey sa`.
//
// What else stands in the file, comments and all, stays as it is. The new text is written beside
// the old one and moved over it, so that a reader finds either, whole. Two editors at once wait for
// each other. A file that does not parse is not touched.
#ifndef TOOLS_LATCHKEYD_KERNEL_PAD_EDIT_H_
#define TOOLS_LATCHKEYD_KERNEL_PAD_EDIT_H_

#include <string>
#include <string_view>

#include "policy/model/error.h"
#include "policy/pad.h"

namespace latchkey::broker {

// Adds `entry`; makes the file (mode 0644, the caller's) when there is none. Does nothing when the
// very same entry is there. kConflictSa when the file then names two peers for one SA, which would
// mean that it names nobody; kBadPolicy when it does not parse; kBadRequest for an entry that the
// language cannot say.
Result<void> AppendPadEntry(const std::string& path, const policy::PadEntry& entry);

// Takes out every entry that equals `entry`. kClosed when there is none, kBadPolicy when the file
// does not parse or its tables are not written as plain [[sa]] blocks.
Result<void> RemovePadEntry(const std::string& path, const policy::PadEntry& entry);

// The same on texts; `name` is for messages only.
Result<std::string> WithPadEntry(std::string_view text, const std::string& name,
                                 const policy::PadEntry& entry);
Result<std::string> WithoutPadEntry(std::string_view text, const std::string& name,
                                    const policy::PadEntry& entry);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_PAD_EDIT_H_
