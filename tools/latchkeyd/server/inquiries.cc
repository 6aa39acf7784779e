// What a program may ask about its own sockets. Who holds a socket may ask: it could read and write
// on it as well.
#include <cerrno>
#include <optional>

#include "policy/model/latch.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {

bool Server::HandleInquire(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if (asked.flags != 0) return false;
  const int fd = request.descriptors[0];
  wire::LatchRecord reply{};
  if (const std::optional<Latch> latch = engine_->LatchOf(fd)) reply = ToWire(*latch);
  reply.header = wire::MakeHeader(wire::Type::kLatch, asked.header.serial);
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::HandleBinding(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if (asked.flags != 0) return false;
  const int fd = request.descriptors[0];
  wire::Bound reply{};
  reply.header = wire::MakeHeader(wire::Type::kBound, asked.header.serial);
  reply.error = engine_->LatchOf(fd) ? ENODATA : ENOTCONN;
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

}  // namespace latchkey::broker
