// Says whether the shim can be loaded into a program, from the octets of its file.
//
// What the dynamic loader would do is read off the ELF header, the program headers and the
// interpreter's name (elf(5), System V ABI chapter 5); nothing is mapped or run. A file that passes
// may still fail to start; one that fails here would have run without the shim.
#ifndef TOOLS_LATCHKEY_ELF_CHECK_H_
#define TOOLS_LATCHKEY_ELF_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace latchkey::tool {

// Reads up to `into.size()` octets of a file from `offset`; returns how many there were (fewer only
// at its end), or -1.
using ReadAt = std::function<std::ptrdiff_t(std::span<std::byte> into, uint64_t offset)>;

// Returns a reader over an open descriptor, which stays the caller's, or over octets in memory.
ReadAt FileReader(int fd);
ReadAt MemoryReader(std::span<const std::byte> octets);

// Returns "" when the file is a dynamic x86-64 program that the C library's loader starts, so that
// LD_PRELOAD takes effect; else why not, as the second half of a message ("statically linked: …").
std::string CheckProgram(const ReadAt& read);

// True for an x86-64 program without a loader: it runs, and the shim is not in it.
bool IsStatic(const ReadAt& read);

// Returns "" when the file is an x86-64 shared object, as the shim must be; else why not.
std::string CheckSharedObject(const ReadAt& read);

// A `#!` line, as the kernel splits it (fs/binfmt_script.c): at most one argument, which holds the
// rest of the line.
struct Script {
  std::string interpreter;
  std::string argument;
};

enum class FileKind { kElf, kScript, kBadScript, kOther };

// Tells a program's kind from the beginning of its file. `script` is filled in for kScript.
// kBadScript: a `#!` with no interpreter, or longer than the kernel reads (255 octets).
FileKind KindOf(std::string_view beginning, Script& script);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_ELF_CHECK_H_
