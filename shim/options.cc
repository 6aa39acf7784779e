#include "shim/options.h"

#include <netinet/in.h>

#include <cerrno>
#include <cstdint>

#include "shim/ask.h"
#include "shim/give.h"
#include "shim/info.h"
#include "shim/latchkey.h"
#include "shim/link.h"
#include "shim/past.h"
#include "shim/readable.h"
#include "shim/session.h"

namespace latchkey::shim {
namespace {

constexpr int kTcpClose = 7;
constexpr socklen_t kLeastInfo = 8;  // size and version

struct Target {
  void* value;
  socklen_t room;
  socklen_t* length;

  // Tells how much there is before it gives it: a program that is told EFAULT asks again.
  int Put(const void* from, size_t size) const {
    const auto told = static_cast<socklen_t>(size);
    return Give(length, &told, sizeof(told)) && Give(value, from, size) ? 0 : EFAULT;
  }
  int PutNumber(int number) const {
    return room < sizeof(number) ? EINVAL : Put(&number, sizeof(number));
  }
  int PutWhole(const void* from, size_t size) const {
    if (size == 0) return ENODATA;
    if (size <= room) return Put(from, size);
    const auto needed = static_cast<socklen_t>(size);
    return Give(length, &needed, sizeof(needed)) ? ERANGE : EFAULT;
  }
};

wire::SocketRequest RequestFor(wire::Type type, int fd) {
  wire::SocketRequest request{};
  request.header = wire::MakeHeader(type, NextSerial());
  request.fd = fd;
  return request;
}

int GetFromLatch(int fd, int option, const Target& target) {
  const wire::SocketRequest request = RequestFor(wire::Type::kInquire, fd);
  wire::Received received;
  if (Ask(&request, sizeof(request), fd, wire::Type::kLatch, received) != 0) return ClosedErrno();
  wire::CloseDescriptors(received);
  const auto& record = received.As<wire::LatchRecord>();
  if (record.id == 0) return ENOTCONN;
  switch (option) {
    case LATCHKEY_STATE:
      return target.PutNumber(StateOf(record));
    case LATCHKEY_DISPOSITION:
      return target.PutNumber(DispositionOf(record));
    case LATCHKEY_PEER_ID:
      return target.PutWhole(record.peer_id, LengthWithin(record.peer_id, sizeof(record.peer_id)));
    case LATCHKEY_LOCAL_ID:
      return target.PutWhole(record.local_id,
                             LengthWithin(record.local_id, sizeof(record.local_id)));
    default:
      break;
  }
  if (target.room < kLeastInfo) return EINVAL;
  latchkey_info info;
  FillInfo(record, info);
  return target.Put(&info, target.room < sizeof(info) ? target.room : sizeof(info));
}

int GetBinding(int fd, const Target& target) {
  const wire::SocketRequest request = RequestFor(wire::Type::kBinding, fd);
  wire::Received received;
  if (Ask(&request, sizeof(request), fd, wire::Type::kBound, received) != 0) return ClosedErrno();
  wire::CloseDescriptors(received);
  const auto& bound = received.As<wire::Bound>();
  if (bound.error != 0) return bound.error > 0 ? bound.error : ENODATA;
  if (bound.size > sizeof(bound.octets)) return ENODATA;
  return target.PutWhole(bound.octets, bound.size);
}

int SetRequest(int fd, const void* value, socklen_t length) {
  if (static_cast<int>(length) < 0) return EINVAL;
  if (length > LATCHKEY_REQUEST_MAX) return E2BIG;
  if (length == 0) return EINVAL;
  if (!IsReadable(value, length)) return EFAULT;
  wire::Wish request{};
  request.header = wire::MakeHeader(wire::Type::kWish, NextSerial());
  request.fd = fd;
  for (socklen_t i = 0; i < length; ++i) request.text[i] = static_cast<const char*>(value)[i];
  // A NUL may end the text, and stand nowhere in it: what comes after it would not be read.
  const size_t text = LengthWithin(request.text, length);
  if (text + 1 < length) return EINVAL;
  if (TcpState(fd) != kTcpClose) return EISCONN;
  NotePast(fd);
  wire::Received received;
  if (Ask(&request, sizeof(request), fd, wire::Type::kDecision, received) != 0) {
    return ClosedErrno();
  }
  wire::CloseDescriptors(received);
  const auto& decision = received.As<wire::Decision>();
  if (decision.verdict == wire::Verdict::kBypass) return 0;
  return decision.error > 0 ? decision.error : EACCES;
}

}  // namespace

bool HasOurOptions(int fd) {
  return IntOption(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP && IsInet(fd);
}

int GetOption(int fd, int option, void* value, socklen_t* length) {
  if (!IsReadable(length, sizeof(*length))) return EFAULT;
  const Target target{value, *length, length};
  if (static_cast<int>(target.room) < 0) return EINVAL;
  switch (option) {
    case LATCHKEY_STATE:
    case LATCHKEY_PEER_ID:
    case LATCHKEY_LOCAL_ID:
    case LATCHKEY_INFO:
    case LATCHKEY_DISPOSITION:
      return GetFromLatch(fd, option, target);
    case LATCHKEY_CHANNEL_BINDING:
      return GetBinding(fd, target);
    default:
      return ENOPROTOOPT;
  }
}

int SetOption(int fd, int option, const void* value, socklen_t length) {
  return option == LATCHKEY_REQUEST ? SetRequest(fd, value, length) : ENOPROTOOPT;
}

}  // namespace latchkey::shim
