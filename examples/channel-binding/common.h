// What client and server of this example share: the channel's binding, and a proof that includes
// it.
#ifndef EXAMPLES_CHANNEL_BINDING_COMMON_H_
#define EXAMPLES_CHANNEL_BINDING_COMMON_H_

#include <sodium.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string>

#include "latchkey.h"

namespace example {

using Nonce = std::array<unsigned char, 32>;
using Proof = std::array<unsigned char, crypto_auth_hmacsha256_BYTES>;

// Returns the binding of a socket's latch; nothing where there is none: then nobody is to be told
// anything that the secret is behind.
inline std::optional<std::string> BindingOf(int fd) {
  char octets[LATCHKEY_BINDING_MAX];
  socklen_t length = sizeof(octets);
  if (getsockopt(fd, SOL_LATCHKEY, LATCHKEY_CHANNEL_BINDING, octets, &length) < 0) {
    return std::nullopt;
  }
  return std::string(octets, length);
}

// HMAC-SHA-256 under the secret over who proves it, both nonces and the channel: all of fixed
// length but the last.
inline Proof Prove(const std::string& secret, char who, const Nonce& server, const Nonce& client,
                   const std::string& binding) {
  Proof proof;
  crypto_auth_hmacsha256_state state;
  crypto_auth_hmacsha256_init(&state, reinterpret_cast<const unsigned char*>(secret.data()),
                              secret.size());
  crypto_auth_hmacsha256_update(&state, reinterpret_cast<const unsigned char*>(&who), 1);
  crypto_auth_hmacsha256_update(&state, server.data(), server.size());
  crypto_auth_hmacsha256_update(&state, client.data(), client.size());
  crypto_auth_hmacsha256_update(&state, reinterpret_cast<const unsigned char*>(binding.data()),
                                binding.size());
  crypto_auth_hmacsha256_final(&state, proof.data());
  return proof;
}

// In constant time.
inline bool Same(const Proof& a, const Proof& b) {
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

template <size_t kSize>
bool Send(int fd, const std::array<unsigned char, kSize>& octets) {
  return send(fd, octets.data(), kSize, MSG_NOSIGNAL) == static_cast<ssize_t>(kSize);
}

template <size_t kSize>
bool Receive(int fd, std::array<unsigned char, kSize>& octets) {
  return recv(fd, octets.data(), kSize, MSG_WAITALL) == static_cast<ssize_t>(kSize);
}

inline std::string Hex(const std::string& octets) {
  std::string hex;
  for (const char octet : octets) {
    const auto value = static_cast<unsigned char>(octet);
    hex += "0123456789abcdef"[value >> 4];
    hex += "0123456789abcdef"[value & 15];
  }
  return hex;
}

// "type hex", to be shown.
inline std::string Show(const std::string& binding) {
  const size_t colon = binding.find(':');
  return binding.substr(0, colon) + " " + Hex(binding.substr(colon + 1));
}

}  // namespace example

#endif  // EXAMPLES_CHANNEL_BINDING_COMMON_H_
