#include "tools/latchkey/charon_lists.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <optional>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/connection.h"
#include "tools/latchkeyd/keymgr/vici/message.h"

namespace latchkey::tool {
namespace {

namespace vici = broker::vici;
using Clock = std::chrono::steady_clock;
using vici::Packet;
using vici::PacketType;

// Hands over packets until one is the last; false where none is in time.
bool Receive(vici::Connection& charon, Clock::time_point until,
             const std::function<bool(const Packet&)>& is_last) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    const auto events = static_cast<int16_t>(charon.wants_write() ? POLLIN | POLLOUT : POLLIN);
    pollfd wait{charon.fd(), events, 0};
    if (poll(&wait, 1, static_cast<int>(left)) < 0) return false;
    if ((wait.revents & POLLOUT) != 0 && !charon.OnWritable()) return false;
    if ((wait.revents & ~POLLOUT) == 0) continue;
    const auto packets = charon.OnReadable();
    if (!packets) return false;
    if (std::ranges::any_of(*packets, is_last)) return true;
  }
}

// Asks `command`, whose answers come as events, and hands them over; false without all of them.
bool Ask(vici::Connection& charon, Clock::time_point until, const char* command, const char* event,
         const vici::Section& how, const std::function<void(const vici::Section&)>& take) {
  bool known = false;
  const auto confirmed = [&known](const Packet& packet) {
    known = packet.type == PacketType::kConfirm;
    return known || packet.type == PacketType::kUnknownEvent;
  };
  if (!charon.Send({PacketType::kRegister, event, {}})) return false;
  if (!Receive(charon, until, confirmed) || !known) return false;
  bool answered = false;
  const auto over = [&](const Packet& packet) {
    if (packet.type == PacketType::kEvent && packet.name == event) take(packet.message);
    answered = packet.type == PacketType::kResponse;
    return answered || packet.type == PacketType::kUnknownCommand;
  };
  if (!charon.Send({PacketType::kRequest, command, how})) return false;
  return Receive(charon, until, over) && answered;
}

}  // namespace

Result<CharonLists> ListCharon(const std::string& socket, std::chrono::milliseconds patience) {
  const Clock::time_point until = Clock::now() + patience;
  int error = 0;
  auto charon = vici::Connection::Open(socket, error);
  if (!charon) {
    const Reason why = error == ENOENT ? Reason::kNoSa : Reason::kKmLost;
    return Fail(why, charon.error().step, charon.error().value);
  }
  CharonLists lists;
  const auto add_conn = [&lists](const vici::Section& message) {
    if (auto conn = vici::ReadConn(message)) lists.conns.push_back(std::move(*conn));
  };
  const auto add_sa = [&lists](const vici::Section& message) {
    if (auto sa = vici::ReadUpDown(message)) lists.sas.push_back(std::move(sa->ike));
  };
  vici::Section how;
  how.Add("noblock", std::string("yes"));  // what is being negotiated is waited for by nobody here
  if (!Ask(*charon, until, "list-conns", "list-conn", {}, add_conn) ||
      !Ask(*charon, until, "list-sas", "list-sa", how, add_sa)) {
    return Fail(Reason::kKmLost, "ask charon", socket + " does not answer");
  }
  return lists;
}

}  // namespace latchkey::tool
