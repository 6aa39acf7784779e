// Which addresses belong to this host: those of all interfaces of the broker's network namespace.
#ifndef TOOLS_LATCHKEYD_KERNEL_LOCAL_ADDRESSES_H_
#define TOOLS_LATCHKEYD_KERNEL_LOCAL_ADDRESSES_H_

#include <set>

#include "policy/model/address.h"
#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"

namespace latchkey::broker {

class LocalAddresses {
 public:
  // Joins the address events first, then reads the addresses: none can be missed in between.
  static Result<LocalAddresses> Open();

  // True for an address of any interface, for all of 127/8 and for ::1. Reads the addresses again
  // when an event said that they changed; when that fails, answers from what is known and tries
  // again the next time.
  bool Contains(const Address& address);

 private:
  explicit LocalAddresses(NetlinkEvents events) : events_(std::move(events)) {}
  Result<void> Read();

  NetlinkEvents events_;
  std::set<Address> addresses_;
  bool stale_ = true;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_LOCAL_ADDRESSES_H_
