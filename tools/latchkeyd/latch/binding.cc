#include "tools/latchkeyd/latch/binding.h"

#include <sodium.h>

#include <cstddef>

namespace latchkey::broker {
namespace {

struct Digest {
  unsigned char octets[crypto_hash_sha256_BYTES];
};

Digest Sha256(const std::string& text) {
  Digest digest;
  crypto_hash_sha256(digest.octets, reinterpret_cast<const unsigned char*>(text.data()),
                     text.size());
  return digest;
}

}  // namespace

std::string ChannelBinding(const std::string& own, const std::string& peer) {
  if (own.empty() || peer.empty() || own == peer) return {};
  const Digest a = Sha256(own);
  const Digest b = Sha256(peer);
  std::string binding = std::string(kBindingType) + ":";
  for (size_t i = 0; i < sizeof(a.octets); ++i) {
    binding += static_cast<char>(a.octets[i] ^ b.octets[i]);
  }
  return binding;
}

}  // namespace latchkey::broker
