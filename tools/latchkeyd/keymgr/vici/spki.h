// The public key in an X.509 certificate: its subjectPublicKeyInfo (RFC 5280, 4.1), as it stands.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_SPKI_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_SPKI_H_

#include <optional>
#include <string>
#include <string_view>

namespace latchkey::broker::vici {

// Returns the whole field, tag and length included, of a certificate in DER. Nothing where `der` is
// no certificate to its last octet, or a length is not as DER has it: two texts of one key would be
// two keys. What is in the other fields is not looked at: charon has.
std::optional<std::string> SubjectPublicKeyInfo(std::string_view der);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_SPKI_H_
