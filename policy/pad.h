// /etc/latchkey/pad.toml: who is behind manually keyed SAs.
#ifndef POLICY_PAD_H_
#define POLICY_PAD_H_

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/protection.h"
#include "policy/parse.h"

namespace latchkey::policy {

// Named by reqid, or by one SPI with its destination address.
struct PadEntry {
  uint32_t reqid = 0;
  uint32_t spi = 0;
  Address spi_destination;
  std::vector<Address> remote;  // the peer's addresses; empty: any
  Identity identity;
};

struct Pad {
  std::vector<PadEntry> entries;

  // Returns who is behind an SA between `local` and `remote`: an entry by its SPI first, then by
  // its reqid. Nothing when no entry speaks of it, or when entries disagree about the identity (a
  // PAD that names two names nobody).
  const PadEntry* Find(uint32_t reqid, uint32_t spi, const Address& destination,
                       const Address& remote) const;
};

// Parses `text`; errors as in Parse(). `[[sa]]` tables only, and an optional `latchkey = 1`.
std::expected<Pad, std::vector<ParseError>> ParsePad(std::string_view text, std::string_view file);

}  // namespace latchkey::policy

#endif  // POLICY_PAD_H_
