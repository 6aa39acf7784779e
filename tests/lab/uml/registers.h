// How user-mode-linux sets the vector registers of its processes, on processors that have more of
// them than it knows.
//
// Linux 6.1 as user-mode-linux passes 2,696 octets to PTRACE_SETREGSET; the host's kernel takes the
// whole state or nothing (arch/x86/kernel/fpu/regset.c, xstateregs_set). On one with AMX that is
// 11,008, and every process of the guest dies. libregisters.so, preloaded into linux.uml alone,
// adds what is missing: state that no process of the guest can be in, as it would have had to ask
// for it.
#ifndef TESTS_LAB_UML_REGISTERS_H_
#define TESTS_LAB_UML_REGISTERS_H_

#include <cstddef>
#include <span>

namespace latchkey::lab {

// The most that a processor is expected to have; AMX makes it 11,008.
inline constexpr size_t kMostOctets = 16384;

// Says how many octets the registers take here, of those that the kernel has switched on (CPUID
// leaf 0xd); 0 where the processor does not tell.
size_t RegisterOctets();

// Writes `known`, the beginning of a standard XSAVE area, to `whole` and makes the rest of that the
// state of a processor just started: its header says that nothing beyond `known` is in use. Returns
// whether both are large enough to have a header and `known` fits into `whole`; otherwise nothing
// is written. Intel SDM 1, 13.4.
bool PadRegisters(std::span<const std::byte> known, std::span<std::byte> whole);

}  // namespace latchkey::lab

#endif  // TESTS_LAB_UML_REGISTERS_H_
