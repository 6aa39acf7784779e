#include "tools/latchkey/doctor_charon.h"

#include <poll.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/keymgr/vici/connection.h"
#include "tools/latchkeyd/keymgr/vici/conns.h"
#include "tools/latchkeyd/keymgr/vici/message.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"

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

void ListChildren(KeyManagerFacts& facts, std::chrono::milliseconds patience) {
  const Clock::time_point until = Clock::now() + patience;
  int error = 0;
  auto charon = vici::Connection::Open(facts.socket, error);
  if (!charon) return;
  std::vector<ChildFacts> children;
  const auto add_conn = [&children](const vici::Section& message) {
    const auto conn = vici::ReadConn(message);
    if (!conn) return;
    for (const vici::ChildConfig& child : conn->children) {
      if (child.mode != Mode::kUnknown) children.push_back({conn->name, child.name, {}});
    }
  };
  if (!Ask(*charon, until, "list-conns", "list-conn", {}, add_conn)) return;
  const auto add_sa = [&children](const vici::Section& message) {
    const auto sa = vici::ReadUpDown(message);
    if (!sa) return;
    for (const vici::ChildSa& up : sa->ike.children) {
      // charon puts a child under another connection's IKE_SA where that is just as good.
      auto child = std::ranges::find(children, up.name, &ChildFacts::name);
      if (std::ranges::count(children, up.name, &ChildFacts::name) > 1) {
        child = std::ranges::find_if(children, [&](const ChildFacts& each) {
          return each.connection == sa->ike.name && each.name == up.name;
        });
      }
      if (child != children.end() &&
          std::ranges::find(child->reqids, up.reqid) == child->reqids.end()) {
        child->reqids.push_back(up.reqid);
      }
    }
  };
  vici::Section how;
  how.Add("noblock", std::string("yes"));  // what is being negotiated is waited for by nobody here
  if (!Ask(*charon, until, "list-sas", "list-sa", how, add_sa)) return;
  facts.listed = true;
  facts.children = std::move(children);
}

}  // namespace latchkey::tool
