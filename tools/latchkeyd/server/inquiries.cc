// What a program may ask about its own sockets. Who holds a socket may ask: it could read and write
// on it as well.
#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>

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

bool Server::HandleInquirePeer(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::PeerInquiry>();
  if (asked.flags != 0) return false;
  const int fd = request.descriptors[0];
  wire::LatchRecord reply{};
  if (const std::optional<Latch> latch = engine_->PeerLatchOf(fd, asked.id)) {
    reply = ToWire(*latch);
  }
  reply.header = wire::MakeHeader(wire::Type::kLatch, asked.header.serial);
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::HandleBinding(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if (asked.flags != 0) return false;
  const int fd = request.descriptors[0];
  const bool latched = engine_->LatchOf(fd).has_value();
  const uint64_t ticket = latched ? engine_->AskBinding(fd) : 0;
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  if (ticket != 0) {
    connection.binding = ticket;
    connection.binding_serial = asked.header.serial;
    return true;
  }
  return ReplyBound(connection, asked.header.serial, latched ? ENODATA : ENOTCONN, {});
}

bool Server::ReplyBound(const Connection& connection, uint32_t serial, int error,
                        const std::string& binding) {
  wire::Bound reply{};
  reply.header = wire::MakeHeader(wire::Type::kBound, serial);
  reply.error = binding.empty() || binding.size() > sizeof(reply.octets) ? error : 0;
  if (reply.error == 0) {
    reply.size = static_cast<uint32_t>(binding.size());
    std::ranges::copy(binding, reply.octets);
  }
  return Reply(connection, &reply, sizeof(reply));
}

void Server::OnBinding(uint64_t ticket, const std::string& binding) {
  const auto waits = std::ranges::find_if(
      connections_, [ticket](const auto& each) { return each.second.binding == ticket; });
  if (waits == connections_.end()) return;
  Connection& connection = waits->second;
  connection.binding = 0;
  if (!ReplyBound(connection, connection.binding_serial, ENODATA, binding)) {
    End(waits->first, "an answer nobody took");
  }
}

}  // namespace latchkey::broker
