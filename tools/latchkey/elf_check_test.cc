#include "tools/latchkey/elf_check.h"

#include <elf.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

namespace latchkey::tool {
namespace {

// A file of an ELF header, three program headers and an interpreter's name.
struct Crafted {
  Elf64_Ehdr header{};
  Elf64_Phdr segments[3]{};
  std::string interp = std::string("/lib64/ld-linux-x86-64.so.2") + '\0';

  Crafted() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 3;
    segments[0].p_type = PT_LOAD;
    segments[1].p_type = PT_DYNAMIC;
    segments[2].p_type = PT_INTERP;
    segments[2].p_offset = sizeof(header) + sizeof(segments);
    segments[2].p_filesz = interp.size();
  }
  void Interpreter(const std::string& name) {
    interp = name + '\0';
    segments[2].p_filesz = interp.size();
  }
  std::vector<std::byte> Octets() const {
    std::vector<std::byte> octets(sizeof(header) + sizeof(segments) + interp.size());
    std::memcpy(octets.data(), &header, sizeof(header));
    std::memcpy(octets.data() + sizeof(header), segments, sizeof(segments));
    std::memcpy(octets.data() + sizeof(header) + sizeof(segments), interp.data(), interp.size());
    return octets;
  }
  std::string Check() const {
    const auto octets = Octets();
    return CheckProgram(MemoryReader(octets));
  }
};

TEST_CASE("A dynamic program of the C library passes, as position-independent or not") {
  Crafted file;
  CHECK(file.Check() == "");
  file.header.e_type = ET_EXEC;
  CHECK(file.Check() == "");
}

TEST_CASE("Every truncation is refused") {
  const auto whole = Crafted().Octets();
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    // A copy of its own, so that a read past the end is one the sanitizer sees.
    const std::vector<std::byte> cut(whole.begin(),
                                     whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(CheckProgram(MemoryReader(cut)) != "");
  }
}

TEST_CASE("No interpreter is a static program, static-pie included") {
  Crafted file;
  file.segments[2].p_type = PT_NOTE;
  CHECK(file.Check() == "statically linked: the shim cannot be loaded into it");
  file.segments[1].p_type = PT_NOTE;
  CHECK(file.Check().starts_with("statically linked"));
}

TEST_CASE("An interpreter without a dynamic section is refused") {
  Crafted file;
  file.segments[1].p_type = PT_NOTE;
  CHECK(file.Check().starts_with("no dynamic section"));
}

TEST_CASE("Other loaders are refused") {
  Crafted file;
  file.Interpreter("/lib/ld-musl-x86_64.so.1");
  CHECK(file.Check().starts_with("linked with musl"));
  file.Interpreter("/ld-linux-is-the-folder/other.so");
  CHECK(file.Check().starts_with("its loader is not"));
  file.Interpreter("ld-linux-x86-64.so.2");
  CHECK(file.Check() == "");
  file.Interpreter("");
  CHECK(file.Check() == "its ELF loader has no name");
}

TEST_CASE("The interpreter's name must end and lie in the file") {
  Crafted file;
  file.segments[2].p_filesz -= 1;
  CHECK(file.Check() == "its ELF loader has no name");
  file.segments[2].p_filesz += 2;
  CHECK(file.Check() == "its ELF loader has no name");
  file.segments[2].p_filesz = UINT64_MAX;
  CHECK(file.Check() == "its ELF loader has no name");
  file.segments[2].p_filesz = file.interp.size();
  file.segments[2].p_offset = UINT64_MAX - 3;
  CHECK(file.Check() == "its ELF loader has no name");
}

TEST_CASE("The first interpreter counts, as in the kernel") {
  Crafted file;
  file.segments[0].p_type = PT_INTERP;
  file.segments[0].p_offset = 0;
  file.segments[0].p_filesz = 4;
  CHECK(file.Check() == "its ELF loader has no name");
}

TEST_CASE("Wrong class, order, machine and type are refused") {
  SECTION("class") {
    Crafted file;
    file.header.e_ident[EI_CLASS] = ELFCLASS32;
    CHECK(file.Check().starts_with("not a 64-bit program"));
  }
  SECTION("order") {
    Crafted file;
    file.header.e_ident[EI_DATA] = ELFDATA2MSB;
    CHECK(file.Check().starts_with("not an x86-64 program"));
  }
  SECTION("machine") {
    Crafted file;
    file.header.e_machine = EM_AARCH64;
    CHECK(file.Check().starts_with("not an x86-64 program"));
  }
  SECTION("type") {
    Crafted file;
    file.header.e_type = ET_REL;
    CHECK(file.Check() == "not a program");
  }
  SECTION("magic") {
    Crafted file;
    file.header.e_ident[0] = 0;
    CHECK(file.Check() == "not an ELF file");
  }
}

TEST_CASE("Damaged program headers are refused") {
  Crafted file;
  const std::string damaged = "its ELF program headers are damaged";
  SECTION("entry size") { file.header.e_phentsize = 32; }
  SECTION("none") { file.header.e_phnum = 0; }
  SECTION("more than the file holds") { file.header.e_phnum = 60; }
  SECTION("too many") { file.header.e_phnum = 0xffff; }
  SECTION("past the end") { file.header.e_phoff = 1 << 20; }
  SECTION("around the end") { file.header.e_phoff = UINT64_MAX - 8; }
  CHECK(file.Check() == damaged);
}

TEST_CASE("The shim must be a shared object") {
  Crafted file;
  auto octets = file.Octets();
  CHECK(CheckSharedObject(MemoryReader(octets)) == "");
  file.header.e_type = ET_EXEC;
  octets = file.Octets();
  CHECK(CheckSharedObject(MemoryReader(octets)) == "not a shared object");
  CHECK(CheckSharedObject(MemoryReader({})) == "not an ELF file");
}

TEST_CASE("Script lines are split as the kernel splits them") {
  Script script;
  CHECK(KindOf("#!/bin/sh\necho", script) == FileKind::kScript);
  CHECK(script.interpreter == "/bin/sh");
  CHECK(script.argument == "");
  CHECK(KindOf("#! \t/usr/bin/env  python3 -I \t\n", script) == FileKind::kScript);
  CHECK(script.interpreter == "/usr/bin/env");
  CHECK(script.argument == "python3 -I");
  CHECK(KindOf("#!/bin/sh", script) == FileKind::kScript);
  CHECK(script.interpreter == "/bin/sh");
  CHECK(KindOf("#!\n/bin/sh", script) == FileKind::kBadScript);
  CHECK(KindOf("#!", script) == FileKind::kBadScript);
  CHECK(KindOf("#!   ", script) == FileKind::kBadScript);
  CHECK(KindOf("#!/" + std::string(300, 'x'), script) == FileKind::kBadScript);
  CHECK(KindOf("#", script) == FileKind::kOther);
  CHECK(KindOf("", script) == FileKind::kOther);
  CHECK(KindOf("echo hello\n", script) == FileKind::kOther);
  CHECK(KindOf("\177ELF", script) == FileKind::kElf);
}

}  // namespace
}  // namespace latchkey::tool
