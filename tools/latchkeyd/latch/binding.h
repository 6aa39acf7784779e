// Channel bindings (RFC 5056) of latches: docs/CHANNEL-BINDING.md has the formula and its reasons.
#ifndef TOOLS_LATCHKEYD_LATCH_BINDING_H_
#define TOOLS_LATCHKEYD_LATCH_BINDING_H_

#include <string>

namespace latchkey::broker {

inline constexpr char kBindingType[] = "ipsec-end-point-sha256";

// Returns the binding of a channel between two public keys, each a subjectPublicKeyInfo in DER: the
// type, ":" and 32 octets, the same whichever end asks. Empty where a key is not known, and where
// both are the same: that binding would be every such pair's.
std::string ChannelBinding(const std::string& own, const std::string& peer);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_BINDING_H_
