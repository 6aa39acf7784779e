// Finds the program to run, and tells those the shim could not be loaded into.
//
// The checks are made before exec for the sake of a clear message; they are not the boundary. What
// changes between check and exec is caught by the broker, which kills a program whose shim does not
// check in.
#ifndef TOOLS_LATCHKEY_PROGRAM_H_
#define TOOLS_LATCHKEY_PROGRAM_H_

#include <string>

#include "tools/latchkey/refusal.h"

namespace latchkey::tool {

struct Program {
  std::string path;      // as execve takes it
  std::string absolute;  // the same, absolute and with its folder's symbolic links resolved
};

// Finds `name` as execvp(3) does: with a slash, that file; else in the folders of `search_path`
// (null: "/bin:/usr/bin"), an empty one of which is the working directory. Refuses with 127 when
// there is none, 126 when none may be executed.
Outcome<Program> FindProgram(const std::string& name, const char* search_path);

// Checks that the shim will be loaded into everything exec of `path` starts: the file itself or,
// for a script, its interpreter (and theirs, up to 4 deep), and what `env` in a `#!` line looks up
// in `search_path`. Each must be a dynamic x86-64 program of the C library, without set-id bits or
// file capabilities, since the loader ignores LD_PRELOAD for those (ld.so(8), secure-execution
// mode). Refuses with 126, or 127 where exec would say ENOENT. A static one is no refusal: returned
// is why nothing can be loaded into it, else "".
Outcome<std::string> CheckLoadable(const std::string& path, const char* search_path);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_PROGRAM_H_
