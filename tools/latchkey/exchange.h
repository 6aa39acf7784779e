// One request and its answer on a broker's socket, and what may follow it.
//
// Checks what every answer must satisfy: one whole message of the expected type and size, of our
// version, with the serial of the request and no descriptors.
#ifndef TOOLS_LATCHKEY_EXCHANGE_H_
#define TOOLS_LATCHKEY_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>

#include "shim/wire/messages.h"

namespace latchkey::tool {

// Sends `request` (a whole message, its header filled in) with copies of `descriptors`, which stay
// the caller's, and waits for the answer of `type` as long as the socket's time-out says. Returns
// "" and the answer in `reply`, else what failed, in words.
std::string ExchangeOctets(int fd, std::span<const std::byte> request,
                           std::span<const int> descriptors, wire::Type type,
                           std::span<std::byte> reply);

// Receives one message that was announced by an earlier answer with this serial, checked as above.
// False when none is there: it does not wait. Else what failed, in words.
std::expected<bool, std::string> ReceiveOctets(int fd, uint32_t serial, wire::Type type,
                                               std::span<std::byte> message);

template <typename Request, typename Reply>
std::string Exchange(int fd, const Request& request, std::span<const int> descriptors,
                     wire::Type type, Reply& reply) {
  return ExchangeOctets(fd, std::as_bytes(std::span(&request, 1)), descriptors, type,
                        std::as_writable_bytes(std::span(&reply, 1)));
}

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EXCHANGE_H_
