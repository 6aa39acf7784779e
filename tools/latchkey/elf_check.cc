#include "tools/latchkey/elf_check.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

namespace latchkey::tool {
namespace {

constexpr uint64_t kMaxHeaders = 512;  // the kernel takes at most 64 KiB of them
constexpr uint64_t kMaxInterp = 4096;  // PATH_MAX, as in the kernel
constexpr size_t kScriptBuffer = 256;  // BINPRM_BUF_SIZE, with its NUL

template <typename T>
std::optional<T> ReadObject(const ReadAt& read, uint64_t offset) {
  std::array<std::byte, sizeof(T)> octets;
  if (read(octets, offset) != static_cast<std::ptrdiff_t>(sizeof(T))) return std::nullopt;
  T object;
  std::memcpy(&object, octets.data(), sizeof(T));
  return object;
}

// Reads the ELF header; on failure `why` says what is wrong.
std::optional<Elf64_Ehdr> ReadHeader(const ReadAt& read, std::string& why) {
  const auto ident = ReadObject<std::array<unsigned char, EI_NIDENT>>(read, 0);
  if (!ident || std::memcmp(ident->data(), ELFMAG, SELFMAG) != 0) {
    why = "not an ELF file";
    return std::nullopt;
  }
  if ((*ident)[EI_CLASS] != ELFCLASS64) {
    why = "not a 64-bit program: the shim is";
    return std::nullopt;
  }
  const auto header = ReadObject<Elf64_Ehdr>(read, 0);
  if (!header) {
    why = "its ELF header is cut short";
    return std::nullopt;
  }
  if ((*ident)[EI_DATA] != ELFDATA2LSB || header->e_machine != EM_X86_64) {
    why = "not an x86-64 program: the shim is";
    return std::nullopt;
  }
  return header;
}

std::optional<std::vector<Elf64_Phdr>> ReadSegments(const ReadAt& read, const Elf64_Ehdr& header,
                                                    std::string& why) {
  why = "its ELF program headers are damaged";
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum > kMaxHeaders || header.e_phoff > UINT64_MAX / 2) {
    return std::nullopt;
  }
  std::vector<Elf64_Phdr> segments;
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    const auto segment = ReadObject<Elf64_Phdr>(read, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (!segment) return std::nullopt;
    segments.push_back(*segment);
  }
  why.clear();
  return segments;
}

std::string CheckInterpreter(const ReadAt& read, const Elf64_Phdr& segment) {
  if (segment.p_filesz < 2 || segment.p_filesz > kMaxInterp) return "its ELF loader has no name";
  std::string name(segment.p_filesz, '\0');
  if (read(std::as_writable_bytes(std::span(name)), segment.p_offset) !=
          static_cast<std::ptrdiff_t>(name.size()) ||
      name.back() != '\0') {
    return "its ELF loader has no name";
  }
  name.resize(std::strlen(name.c_str()));
  const std::string_view file = std::string_view(name).substr(name.rfind('/') + 1);
  if (file.starts_with("ld-musl")) {
    return "linked with musl: the shim is for programs of the GNU C library";
  }
  if (!file.starts_with("ld-linux")) {
    return "its loader is not the GNU C library's: the shim cannot be loaded into it";
  }
  return {};
}

}  // namespace

ReadAt FileReader(int fd) {
  return [fd](std::span<std::byte> into, uint64_t offset) -> std::ptrdiff_t {
    size_t done = 0;
    while (done < into.size()) {
      const ssize_t count =
          pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return -1;
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return static_cast<std::ptrdiff_t>(done);
  };
}

ReadAt MemoryReader(std::span<const std::byte> octets) {
  return [octets](std::span<std::byte> into, uint64_t offset) -> std::ptrdiff_t {
    if (offset >= octets.size()) return 0;
    const auto rest = octets.subspan(offset);
    const size_t count = std::min(into.size(), rest.size());
    std::copy_n(rest.begin(), count, into.begin());
    return static_cast<std::ptrdiff_t>(count);
  };
}

std::string CheckProgram(const ReadAt& read) {
  std::string why;
  const auto header = ReadHeader(read, why);
  if (!header) return why;
  if (header->e_type != ET_EXEC && header->e_type != ET_DYN) return "not a program";
  const auto segments = ReadSegments(read, *header, why);
  if (!segments) return why;
  const auto has = [&](uint32_t type) {
    return std::find_if(segments->begin(), segments->end(),
                        [type](const Elf64_Phdr& segment) { return segment.p_type == type; });
  };
  // The kernel uses the first PT_INTERP. A static-pie has a dynamic section but no interpreter.
  const auto interp = has(PT_INTERP);
  if (interp == segments->end()) return "statically linked: the shim cannot be loaded into it";
  if (has(PT_DYNAMIC) == segments->end()) {
    return "no dynamic section: the shim cannot be loaded into it";
  }
  return CheckInterpreter(read, *interp);
}

bool IsStatic(const ReadAt& read) {
  std::string why;
  const auto header = ReadHeader(read, why);
  if (!header || (header->e_type != ET_EXEC && header->e_type != ET_DYN)) return false;
  const auto segments = ReadSegments(read, *header, why);
  return segments && std::ranges::none_of(*segments, [](const Elf64_Phdr& segment) {
           return segment.p_type == PT_INTERP;
         });
}

std::string CheckSharedObject(const ReadAt& read) {
  std::string why;
  const auto header = ReadHeader(read, why);
  if (!header) return why;
  if (header->e_type != ET_DYN) return "not a shared object";
  if (!ReadSegments(read, *header, why)) return why;
  return {};
}

FileKind KindOf(std::string_view beginning, Script& script) {
  if (beginning.starts_with(ELFMAG)) return FileKind::kElf;
  if (!beginning.starts_with("#!")) return FileKind::kOther;
  std::string_view line = beginning.substr(2, kScriptBuffer - 3);
  const size_t end = line.find('\n');
  if (end == std::string_view::npos && beginning.size() >= kScriptBuffer) {
    // The kernel runs such a line only when the interpreter's name is whole; we ask for all of it.
    return FileKind::kBadScript;
  }
  line = line.substr(0, std::min(end, line.find('\0')));
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!line.empty() && blank(line.front())) line.remove_prefix(1);
  while (!line.empty() && blank(line.back())) line.remove_suffix(1);
  if (line.empty()) return FileKind::kBadScript;
  const size_t split = line.find_first_of(" \t");
  script.interpreter = std::string(line.substr(0, split));
  script.argument.clear();
  if (split != std::string_view::npos) {
    line.remove_prefix(split);
    while (blank(line.front())) line.remove_prefix(1);
    script.argument = std::string(line);
  }
  return FileKind::kScript;
}

}  // namespace latchkey::tool
