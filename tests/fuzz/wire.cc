// What any local program can send the broker (shim/wire/codec.h): octets off a socket are a whole
// message of its type's exact size, or refused; what they say converts without loss.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "policy/model/latch.h"
#include "shim/wire/codec.h"
#include "tests/fuzz/check.h"
#include "tools/latchkeyd/server/receive.h"

namespace {

using latchkey::fuzz::Check;
namespace wire = latchkey::wire;

void CheckMessage(const wire::Received& received) {
  Check(received.size == wire::SizeOf(received.header().type), "a message has its type's size");
  switch (received.header().type) {
    case wire::Type::kConnect:
    case wire::Type::kListen:
    case wire::Type::kAccept:
    case wire::Type::kRelease:
    case wire::Type::kLatches:
    case wire::Type::kInquire:
    case wire::Type::kBinding: {
      const latchkey::SocketAddress remote =
          latchkey::FromWire(received.As<wire::SocketRequest>().remote);
      Check(latchkey::FromWire(latchkey::ToWire(remote)) == remote, "an address converts back");
      break;
    }
    case wire::Type::kLatch: {
      const auto latch = latchkey::FromWire(received.As<wire::LatchRecord>());
      if (!latch) break;
      const auto again = latchkey::FromWire(latchkey::ToWire(*latch));
      Check(again.has_value(), "what was read can be written and read again");
      Check(again->id == latch->id && again->flow == latch->flow &&
                again->identity == latch->identity && again->protection == latch->protection,
            "a latch converts back");
      break;
    }
    default:
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int ends[2];
  if (size == 0 || size > 2 * wire::kMaxMessage) return 0;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return 0;
  if (send(ends[0], data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(size)) {
    wire::Received received;
    const int error = wire::ReceiveMessage(ends[1], received, /*wait=*/false);
    Check(error == 0 || error == EPROTO, "a message is taken or refused");
    if (error == 0) CheckMessage(received);
    wire::CloseDescriptors(received);
    // The broker's own way in is of the same mind.
    std::vector<int> descriptors;
    wire::Received request;
    send(ends[0], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    Check(latchkey::broker::ReceiveRequest(ends[1], request, descriptors) == error,
          "both receivers take the same messages");
  }
  close(ends[0]);
  close(ends[1]);
  return 0;
}
