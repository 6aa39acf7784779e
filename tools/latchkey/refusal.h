// Why a verb does not go on: its exit code and the one line it prints.
#ifndef TOOLS_LATCHKEY_REFUSAL_H_
#define TOOLS_LATCHKEY_REFUSAL_H_

#include <expected>
#include <string>
#include <utility>

namespace latchkey::tool {

// `run`: by the convention of env(1), nice(1), chroot(1).
inline constexpr int kExitLauncher = 125;   // the launcher's own failure, before exec
inline constexpr int kExitCannotRun = 126;  // found, but cannot be run under Latchkey
inline constexpr int kExitNotFound = 127;
// The other verbs.
inline constexpr int kExitYes = 0;
inline constexpr int kExitNo = 1;  // refused, not found, bad file
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoBroker = 3;

struct Refusal {
  int exit = kExitLauncher;
  std::string text;  // without "latchkey: "; several errors of one file are lines of it
};

template <typename T>
using Outcome = std::expected<T, Refusal>;

inline std::unexpected<Refusal> Refuse(int exit, std::string text) {
  return std::unexpected(Refusal{exit, std::move(text)});
}

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_REFUSAL_H_
