// Installs and deletes pairs of manually keyed SAs: what `latchkey sa` does.
//
// Who is behind them the PAD file says (pad_edit.h), and it must say so before the SAs are there:
// add the entry, then install; delete the SAs, then remove the entry.
#ifndef TOOLS_LATCHKEYD_KERNEL_SA_INSTALL_H_
#define TOOLS_LATCHKEYD_KERNEL_SA_INSTALL_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/sa_derive.h"

namespace latchkey::broker {

struct ManualSa {
  Address local;
  Address remote;
  uint32_t reqid = 0;  // not 0
  std::string suite = std::string(kDefaultSaSuite);
};

// Installs the SA from the remote address and the one to it: ESP, transport mode, any flow between
// the two, replay window 32, no expiry. Both or none: when the second is refused the first is taken
// back. The errors are DeriveSa()'s, kConflictSa when an SA of that SPI is there already, and
// kKernelRefused.
Result<void> InstallPair(std::span<const uint8_t> secret, const ManualSa& sa);

// Deletes both, found by the SPIs derived again. kNoSa when neither was there.
Result<void> DeletePair(std::span<const uint8_t> secret, const ManualSa& sa);

// Returns the NEWSA request for one SA; it holds keys, so the caller wipes it.
std::vector<uint8_t> BuildNewSa(const Address& source, const Address& destination, uint32_t reqid,
                                const SaSuite& suite, const SaKeys& keys);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_SA_INSTALL_H_
