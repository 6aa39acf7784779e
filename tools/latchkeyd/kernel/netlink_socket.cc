#include "tools/latchkeyd/kernel/netlink_socket.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace latchkey::broker {
namespace {

constexpr int kAnswerSeconds = 5;

// What libnl received into. XFRM's messages hold keys, so nothing of them stays in freed memory.
class Buffer {
 public:
  Buffer(unsigned char* octets, int length)
      : octets_(octets), length_(length > 0 ? static_cast<size_t>(length) : 0) {}
  ~Buffer() {
    if (octets_ != nullptr) explicit_bzero(octets_, length_);
    std::free(octets_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  nlmsghdr* first() const { return reinterpret_cast<nlmsghdr*>(octets_); }

 private:
  unsigned char* const octets_;
  const size_t length_;
};

struct MessageFree {
  void operator()(nl_msg* message) const {
    explicit_bzero(nlmsg_data(nlmsg_hdr(message)),
                   static_cast<size_t>(nlmsg_datalen(nlmsg_hdr(message))));
    nlmsg_free(message);
  }
};

std::unexpected<NetlinkError> Failed(int number, std::string text = {}) {
  return std::unexpected(NetlinkError{number, std::move(text)});
}

Result<internal::SocketHandle> Connect(int protocol) {
  internal::SocketHandle socket(nl_socket_alloc());
  if (!socket) return Fail(Reason::kKernelRefused, "allocate netlink socket");
  if (const int error = nl_connect(socket.get(), protocol); error < 0) {
    return Fail(Reason::kKernelRefused,
                "open netlink socket of protocol " + std::to_string(protocol), nl_geterror(error));
  }
  // Receives exactly as much as there is, however long a message of a dump gets.
  nl_socket_enable_msg_peek(socket.get());
  nl_socket_disable_auto_ack(socket.get());  // asked for where it is wanted
  fcntl(nl_socket_get_fd(socket.get()), F_SETFD, FD_CLOEXEC);
  return socket;
}

// Reads NLMSG_ERROR or the code in NLMSG_DONE; with the kernel's words from the extended ack.
std::expected<void, NetlinkError> ReadError(nlmsghdr* header) {
  int code = 0;
  if (nlmsg_datalen(header) < static_cast<int>(sizeof(code))) {
    // Older kernels end a dump with an empty NLMSG_DONE.
    if (header->nlmsg_type == NLMSG_DONE) return {};
    return Failed(EBADMSG, "short answer");
  }
  std::memcpy(&code, nlmsg_data(header), sizeof(code));
  if (code == 0) return {};
  NetlinkError error{code < 0 ? -code : EBADMSG, {}};
  if (header->nlmsg_type == NLMSG_ERROR && (header->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
    // The request is sent back whole before the attributes unless the answer is capped.
    size_t skip = sizeof(nlmsgerr);
    if ((header->nlmsg_flags & NLM_F_CAPPED) == 0) {
      nlmsgerr echoed;
      if (nlmsg_datalen(header) < static_cast<int>(sizeof(echoed))) return std::unexpected(error);
      std::memcpy(&echoed, nlmsg_data(header), sizeof(echoed));
      if (echoed.msg.nlmsg_len > sizeof(nlmsghdr)) skip += echoed.msg.nlmsg_len - sizeof(nlmsghdr);
    }
    if (skip < static_cast<size_t>(nlmsg_datalen(header))) {
      nlattr* text = nla_find(nlmsg_attrdata(header, static_cast<int>(skip)),
                              nlmsg_attrlen(header, static_cast<int>(skip)), NLMSGERR_ATTR_MSG);
      if (text != nullptr) {
        const auto* words = static_cast<const char*>(nla_data(text));
        error.text.assign(words, strnlen(words, static_cast<size_t>(nla_len(text))));
      }
    }
  }
  return std::unexpected(std::move(error));
}

}  // namespace

std::string NetlinkError::ToString() const {
  std::string result = std::strerror(number);
  if (!text.empty()) result += " (" + text + ")";
  return result;
}

void internal::SocketFree::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<NetlinkSocket> NetlinkSocket::Open(int protocol) {
  Result<internal::SocketHandle> socket = Connect(protocol);
  if (!socket) return std::unexpected(socket.error());
  const int fd = nl_socket_get_fd(socket->get());
  const timeval patience{kAnswerSeconds, 0};
  const int yes = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0) {
    return Fail(Reason::kKernelRefused, "setsockopt SO_RCVTIMEO", std::strerror(errno));
  }
  // Words beside the errno: nice to have.
  (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &yes, sizeof(yes));
  (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof(yes));
  return NetlinkSocket(std::move(*socket));
}

std::expected<void, NetlinkError> NetlinkSocket::Send(std::span<const uint8_t> octets,
                                                      uint16_t flags) {
  nlmsghdr header;
  if (octets.size() < sizeof(header)) return Failed(EINVAL, "short request");
  std::memcpy(&header, octets.data(), sizeof(header));
  std::unique_ptr<nl_msg, MessageFree> message(nlmsg_alloc_size(NLMSG_ALIGN(octets.size())));
  if (!message) return Failed(ENOMEM);
  if (++sequence_ == 0) sequence_ = 1;  // 0 would have libnl choose one
  if (nlmsg_put(message.get(), NL_AUTO_PORT, sequence_, header.nlmsg_type, 0,
                static_cast<int>(NLM_F_REQUEST | flags)) == nullptr) {
    return Failed(ENOMEM);
  }
  const std::span<const uint8_t> body = octets.subspan(sizeof(header));
  if (!body.empty()) {
    void* room = nlmsg_reserve(message.get(), body.size(), NLMSG_ALIGNTO);
    if (room == nullptr) return Failed(ENOMEM);
    std::memcpy(room, body.data(), body.size());
  }
  nl_complete_msg(socket_.get(), message.get());
  if (const int sent = nl_send(socket_.get(), message.get()); sent < 0) {
    return Failed(EIO, nl_geterror(sent));
  }
  return {};
}

std::expected<void, NetlinkError> NetlinkSocket::Receive(const Visit& visit, bool one) {
  std::expected<void, NetlinkError> result;
  bool interrupted = false;
  bool seen = false;
  while (true) {
    sockaddr_nl from{};
    unsigned char* raw = nullptr;
    int length = nl_recv(socket_.get(), &from, &raw, nullptr);
    const Buffer buffer(raw, length);
    if (length < 0) return Failed(length == -NLE_AGAIN ? ETIMEDOUT : EIO, nl_geterror(length));
    if (length == 0) return Failed(EIO, "netlink socket ended");
    if (from.nl_pid != 0) continue;  // only the kernel answers
    for (nlmsghdr* header = buffer.first(); nlmsg_ok(header, length) != 0;
         header = nlmsg_next(header, &length)) {
      if (header->nlmsg_seq != sequence_) continue;  // of a request given up before
      if ((header->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_type == NLMSG_DONE) {
        std::expected<void, NetlinkError> end = ReadError(header);
        if (!end) return end;
        if (!result) return result;
        if (interrupted) return Failed(EINTR, "the dump was interrupted by a change");
        if (one && !seen) return Failed(ENOENT, "no answer but an acknowledgement");
        return {};
      }
      if (header->nlmsg_type == NLMSG_OVERRUN) return Failed(ENOBUFS);
      seen = true;
      const std::span<const uint8_t> octets(reinterpret_cast<const uint8_t*>(header),
                                            header->nlmsg_len);
      if (result && visit && !visit(octets)) result = Failed(EBADMSG, "unreadable message");
    }
  }
}

std::expected<void, NetlinkError> NetlinkSocket::Request(std::span<const uint8_t> message) {
  if (auto sent = Send(message, NLM_F_ACK); !sent) return sent;
  return Receive(nullptr, /*one=*/false);
}

std::expected<void, NetlinkError> NetlinkSocket::Get(std::span<const uint8_t> message,
                                                     const Visit& visit) {
  if (auto sent = Send(message, NLM_F_ACK); !sent) return sent;
  return Receive(visit, /*one=*/true);
}

std::expected<void, NetlinkError> NetlinkSocket::Dump(std::span<const uint8_t> message,
                                                      const Visit& visit) {
  if (auto sent = Send(message, NLM_F_DUMP); !sent) return sent;
  return Receive(visit, /*one=*/false);
}

Result<NetlinkEvents> NetlinkEvents::Open(int protocol, const std::vector<int>& groups,
                                          int buffer) {
  Result<internal::SocketHandle> socket = Connect(protocol);
  if (!socket) return std::unexpected(socket.error());
  const int fd = nl_socket_get_fd(socket->get());
  // Past the system's limit where allowed, else as much as it gives: an overrun is noticed anyway.
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) != 0) {
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
  }
  for (const int group : groups) {
    if (const int error = nl_socket_add_membership(socket->get(), group); error < 0) {
      return Fail(Reason::kKernelRefused, "join netlink group " + std::to_string(group),
                  nl_geterror(error));
    }
  }
  if (const int error = nl_socket_set_nonblocking(socket->get()); error < 0) {
    return Fail(Reason::kKernelRefused, "set netlink socket non-blocking", nl_geterror(error));
  }
  return NetlinkEvents(std::move(*socket));
}

int NetlinkEvents::fd() const { return nl_socket_get_fd(socket_.get()); }

Result<bool> NetlinkEvents::Drain(const std::function<void(std::span<const uint8_t>)>& visit,
                                  int limit) {
  bool lost = false;
  for (int count = 0; count < limit;) {
    sockaddr_nl from{};
    unsigned char* raw = nullptr;
    int length = nl_recv(socket_.get(), &from, &raw, nullptr);
    const Buffer buffer(raw, length);
    if (length == -NLE_AGAIN || length == 0) return lost;
    if (length == -NLE_NOMEM) {  // ENOBUFS, or truly no memory: either way something may be lost
      lost = true;
      ++count;
      continue;
    }
    if (length < 0) {
      return Fail(Reason::kKernelRefused, "read netlink events", nl_geterror(length));
    }
    if (from.nl_pid != 0) continue;
    for (nlmsghdr* header = buffer.first(); nlmsg_ok(header, length) != 0;
         header = nlmsg_next(header, &length)) {
      ++count;
      visit(std::span<const uint8_t>(reinterpret_cast<const uint8_t*>(header), header->nlmsg_len));
    }
  }
  return lost;
}

}  // namespace latchkey::broker
