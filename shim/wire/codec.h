// Sends and receives one message of the protocol, with descriptors; every check a receiver owes is
// made here. No allocation, no libc function (raw_syscall.h): shim, launcher and broker use it
// alike.
#ifndef SHIM_WIRE_CODEC_H_
#define SHIM_WIRE_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "shim/wire/messages.h"

namespace latchkey::wire {

// Returns the size that a message of `type` has, 0 for a type that does not exist.
constexpr uint32_t SizeOf(Type type) {
  switch (type) {
    case Type::kOpen:
      return sizeof(Open);
    case Type::kAttach:
      return sizeof(Attach);
    case Type::kConnect:
    case Type::kListen:
    case Type::kAccept:
    case Type::kRelease:
    case Type::kHold:
    case Type::kPeer:
    case Type::kLatches:
    case Type::kInquire:
    case Type::kBinding:
      return sizeof(SocketRequest);
    case Type::kInquirePeer:
      return sizeof(PeerInquiry);
    case Type::kWish:
      return sizeof(Wish);
    case Type::kList:
    case Type::kShow:
    case Type::kSpd:
    case Type::kSa:
    case Type::kWhy:
    case Type::kBreak:
    case Type::kResume:
    case Type::kWatch:
    case Type::kFence:
      return sizeof(Query);
    case Type::kOpened:
      return sizeof(Opened);
    case Type::kAttached:
      return sizeof(Attached);
    case Type::kDecision:
      return sizeof(Decision);
    case Type::kLatch:
      return sizeof(LatchRecord);
    case Type::kSpdEntry:
      return sizeof(SpdRecord);
    case Type::kSaEntry:
      return sizeof(SaRecord);
    case Type::kIncident:
      return sizeof(IncidentRecord);
    case Type::kDone:
      return sizeof(Done);
    case Type::kEvent:
      return sizeof(EventRecord);
    case Type::kFenced:
      return sizeof(FenceRecord);
    case Type::kBound:
      return sizeof(Bound);
  }
  return 0;
}

inline Header MakeHeader(Type type, uint32_t serial) {
  return Header{kMagic, kVersion, type, SizeOf(type), serial};
}

// Sends `message` (its header filled in) with `count` descriptors, which stay the caller's. Never
// raises SIGPIPE. Returns 0 or the errno; EAGAIN when it would have to wait and `wait` is false.
int SendMessage(int socket, const void* message, uint32_t size, const int* descriptors, int count,
                bool wait);

struct Received {
  alignas(8) unsigned char octets[kMaxMessage];
  uint32_t size = 0;
  int descriptors[kMaxDescriptors] = {-1, -1, -1};  // the receiver's to close
  int descriptor_count = 0;
  bool has_credentials = false;
  int32_t pid = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;

  const Header& header() const { return *reinterpret_cast<const Header*>(octets); }
  // The message as `T`, which the caller knows from the type: sizes were checked.
  template <typename T>
  const T& As() const {
    return *reinterpret_cast<const T*>(octets);
  }
};

// True when what was received is one whole message, of a known type and its exact size. The
// receiver checks descriptors and truncation.
inline bool IsWhole(const Received& received) {
  const Header& header = received.header();
  return received.size >= sizeof(Header) && header.magic == kMagic && header.version == kVersion &&
         header.size == received.size && SizeOf(header.type) == received.size;
}

// Receives one message. 0: a whole one, of a known type and its exact size. EPROTO: anything else
// that came (what descriptors it brought are closed). EPIPE: the other end is closed. EAGAIN:
// nothing there and `wait` is false. Otherwise the errno. EINTR is not hidden.
int ReceiveMessage(int socket, Received& received, bool wait);

// Closes the descriptors that came with a message.
void CloseDescriptors(Received& received);

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_CODEC_H_
