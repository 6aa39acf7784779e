#include "policy/model/protection.h"

namespace latchkey {

std::string Protection::ToString() const {
  if (protocol == SaProtocol::kNone) return "none";
  std::string text = protocol == SaProtocol::kEsp ? "esp" : "ah";
  switch (mode) {
    case Mode::kTransport:
      text += " transport";
      break;
    case Mode::kTunnel:
      text += " tunnel";
      break;
    case Mode::kBeet:
      text += " beet";
      break;
    case Mode::kUnknown:
      text += " unknown-mode";
      break;
  }
  if (!encryption.empty()) text += " " + encryption + ":" + std::to_string(key_bits);
  if (!integrity.empty()) text += " " + integrity;
  text += replay ? " replay" : " no-replay";
  if (esn) text += " esn";
  return text;
}

}  // namespace latchkey
