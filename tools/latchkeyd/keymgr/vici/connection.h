// One connection to charon's VICI socket: packets out and in, whole ones only, and never a wait.
// The caller watches the descriptor: for reading always, for writing while wants_write().
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_CONNECTION_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_CONNECTION_H_

#include <string>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/vici/message.h"
#include "tools/unique_fd.h"

namespace latchkey::broker::vici {

class Connection {
 public:
  Connection() = default;  // none
  // Takes a connected stream socket, non-blocking from now on.
  explicit Connection(UniqueFd fd);

  // Begins to connect to the socket at `path`. On error km-lost, and `error` is the errno: ENOENT
  // where there is no such file, ECONNREFUSED where nobody listens, EAGAIN where too many wait to
  // be accepted (charon lets three): to be tried again.
  static Result<Connection> Open(const std::string& path, int& error);

  explicit operator bool() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  bool wants_write() const { return connecting_ || !out_.empty(); }

  // Sends a packet, or keeps what does not go at once. After an error the connection is of no use
  // any more; that holds for all three.
  Result<void> Send(const Packet& packet);
  Result<void> OnWritable();
  // Reads what has come, up to some hundred KiB a call. km-lost when charon has closed the
  // connection, once all that came before that was returned, or when it sends what is no packet.
  Result<std::vector<Packet>> OnReadable();

 private:
  Result<void> Flush();
  // Moves the packets that are whole from in_ to `packets`.
  Result<void> Split(std::vector<Packet>& packets);

  UniqueFd fd_;
  bool connecting_ = false;
  std::string out_;
  std::string in_;
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_CONNECTION_H_
