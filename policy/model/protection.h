// What protects a flow: the parameters of an SA, what a policy wants of them, and who is behind it.
#ifndef POLICY_MODEL_PROTECTION_H_
#define POLICY_MODEL_PROTECTION_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace latchkey {

enum class SaProtocol : uint8_t { kNone = 0, kEsp = 50, kAh = 51 };
enum class Mode : uint8_t { kTransport = 0, kTunnel = 1, kBeet = 4, kUnknown = 255 };
enum class Pin : uint8_t { kAuto = 0, kReqid = 1, kSpi = 2 };

// What an SA really does, in our own names ("aes-gcm-16", "hmac-sha2-256"; "" = none). Two flows
// have the same quality of protection when these are equal; nothing here is ever compared by
// strength.
struct Protection {
  SaProtocol protocol = SaProtocol::kNone;
  Mode mode = Mode::kUnknown;
  std::string encryption;
  std::string integrity;  // empty for AEAD
  uint16_t key_bits = 0;  // of the cipher, without the AEAD salt
  bool replay = false;    // replay protection in use
  bool esn = false;

  auto operator<=>(const Protection&) const = default;
  std::string ToString() const;  // "esp transport aes-gcm-16:256 replay"
};

// What a policy asks for.
struct ProtectionSpec {
  std::string name = "default";
  SaProtocol protocol = SaProtocol::kEsp;
  std::optional<Mode> mode = Mode::kTransport;  // nothing: either
  std::vector<std::string> encryption;          // empty: any that hides what it carries
  std::vector<std::string> integrity;           // empty: any, for ciphers that need one
  uint16_t min_key_bits = 128;
  bool replay_required = true;
  bool esn_required = false;
  bool unique = false;  // an SA of the flow's own: selectors that are its 5-tuple
  Pin pin = Pin::kAuto;

  bool operator==(const ProtectionSpec&) const = default;
};

// Who is at the other end, as the key manager verified it.
struct Identity {
  std::string peer_id;
  std::string local_id;
  std::string auth;  // pubkey | psk | eap | manual

  auto operator<=>(const Identity&) const = default;
};

// Which peers a rule accepts. An empty id list accepts any authenticated peer.
struct PeerSpec {
  std::string name;
  std::vector<std::string> ids;
  std::vector<std::string> auth;  // empty: any

  bool operator==(const PeerSpec&) const = default;
};

}  // namespace latchkey

#endif  // POLICY_MODEL_PROTECTION_H_
