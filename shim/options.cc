#include "shim/options.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "shim/ask.h"
#include "shim/give.h"
#include "shim/info.h"
#include "shim/latches.h"
#include "shim/latchkey.h"
#include "shim/link.h"
#include "shim/past.h"
#include "shim/readable.h"
#include "shim/session.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

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

int PutInfo(const wire::LatchRecord& record, const Target& target) {
  if (target.room < kLeastInfo) return EINVAL;
  latchkey_info info;
  FillInfo(record, info);
  return target.Put(&info, target.room < sizeof(info) ? target.room : sizeof(info));
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
  return PutInfo(record, target);
}

int GetPeerInfo(int fd, const Target& target) {
  constexpr socklen_t kLeast = offsetof(latchkey_info, id) + sizeof(latchkey_info::id);
  if (target.room < kLeast) return EINVAL;
  if (!IsReadable(target.value, kLeast)) return EFAULT;
  wire::PeerInquiry request{};
  request.header = wire::MakeHeader(wire::Type::kInquirePeer, NextSerial());
  request.fd = fd;
  __builtin_memcpy(&request.id, static_cast<char*>(target.value) + offsetof(latchkey_info, id),
                   sizeof(request.id));
  wire::Received received;
  if (Ask(&request, sizeof(request), fd, wire::Type::kLatch, received) != 0) return ClosedErrno();
  wire::CloseDescriptors(received);
  const auto& record = received.As<wire::LatchRecord>();
  return record.id == 0 ? ENOTCONN : PutInfo(record, target);
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

// Tells the broker what the program of a UDP socket wants with its datagrams.
int AskForLatches(int fd, bool latches, bool marks) {
  wire::SocketRequest request = RequestFor(wire::Type::kLatches, fd);
  request.flags = (latches ? wire::kRequestLatches : 0) | (marks ? wire::kRequestMarks : 0);
  wire::Received received;
  if (Ask(&request, sizeof(request), fd, wire::Type::kDecision, received) != 0) {
    return ClosedErrno();
  }
  wire::CloseDescriptors(received);
  const auto& decision = received.As<wire::Decision>();
  if (decision.verdict == wire::Verdict::kBypass) return 0;
  return decision.error > 0 ? decision.error : EACCES;
}

// Reads an int as the kernel does; false: EINVAL or EFAULT.
bool ReadNumber(const void* value, socklen_t length, int& number, int& error) {
  error = length < sizeof(number) ? EINVAL : IsReadable(value, sizeof(number)) ? 0 : EFAULT;
  if (error == 0) __builtin_memcpy(&number, value, sizeof(number));
  return error == 0;
}

int SetLatches(int fd, const void* value, socklen_t length) {
  int number = 0;
  int error = 0;
  if (!ReadNumber(value, length, number, error)) return error;
  if (number != 0 && number != 1) return EINVAL;
  const Wants wants = WantsOf(fd);
  if (wants.latches == (number != 0)) return 0;
  const bool marks = wants.latches ? wants.marks : IntOption(fd, SOL_SOCKET, SO_RCVMARK) == 1;
  return AskForLatches(fd, number != 0, marks);
}

bool IsUdp(int fd) { return IntOption(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP; }

// True for a UDP socket that nothing was done with yet.
bool IsFreshUdp(int fd) {
  sockaddr_storage name{};
  socklen_t length = sizeof(name);
  const long peer = RawSyscall(SYS_getpeername, fd, reinterpret_cast<long>(&name),
                               reinterpret_cast<long>(&length));
  length = sizeof(name);
  const long own = RawSyscall(SYS_getsockname, fd, reinterpret_cast<long>(&name),
                              reinterpret_cast<long>(&length));
  // The port is at the same place in both families.
  return peer != 0 && own == 0 && reinterpret_cast<sockaddr_in*>(&name)->sin_port == 0;
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
  if (IsUdp(fd) ? !IsFreshUdp(fd) : TcpState(fd) != kTcpClose) return EISCONN;
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
  const int protocol = IntOption(fd, SOL_SOCKET, SO_PROTOCOL);
  return (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && IsInet(fd);
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
    case LATCHKEY_LATCHES:
      return IsUdp(fd) ? target.PutNumber(WantsOf(fd).latches ? 1 : 0) : ENOPROTOOPT;
    case LATCHKEY_PEER_INFO:
      return IsUdp(fd) ? GetPeerInfo(fd, target) : ENOPROTOOPT;
    default:
      return ENOPROTOOPT;
  }
}

int SetOption(int fd, int option, const void* value, socklen_t length) {
  if (option == LATCHKEY_LATCHES && IsUdp(fd)) return SetLatches(fd, value, length);
  return option == LATCHKEY_REQUEST ? SetRequest(fd, value, length) : ENOPROTOOPT;
}

int SetMarks(int fd, const void* value, socklen_t length) {
  int number = 0;
  int error = 0;
  if (!TellsLatches() || !WantsOf(fd).latches || !ReadNumber(value, length, number, error)) {
    return -1;
  }
  return AskForLatches(fd, /*latches=*/true, number != 0);
}

int SetMerging(int fd, const void* value, socklen_t length) {
  if (!IsGuarded(fd) || !IsUdp(fd)) return -1;
  int number = 0;
  int error = 0;
  return ReadNumber(value, length, number, error) ? 0 : error;
}

void KeepApart(int fd) {
  if (!IsGuarded(fd)) return;
  const int no = 0;
  RawSyscall(SYS_setsockopt, fd, IPPROTO_UDP, UDP_GRO, reinterpret_cast<long>(&no), sizeof(no));
}

}  // namespace latchkey::shim
