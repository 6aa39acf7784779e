// Reads the session's page: what the policy settles without the broker, and which sockets are in
// trouble. Pure functions over the page; nothing is written.
#ifndef SHIM_PAGE_VIEW_H_
#define SHIM_PAGE_VIEW_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include "shim/wire/page.h"

namespace latchkey::shim {

// Reads an inet address of `length` octets; v4-mapped addresses become AF_INET, as the page's rules
// have them. False for another family, or one too short for its family.
bool ReadEndpoint(const sockaddr* address, socklen_t length, wire::Endpoint& endpoint);

// True for 127/8 and ::1.
bool IsLoopback(const wire::Endpoint& endpoint);

// Returns what the policy says of a flow of `protocol` (IPPROTO_TCP, IPPROTO_UDP) to `remote`; kAsk
// while the rules are being rewritten.
wire::Settle SettleConnect(const wire::Page& page, const wire::Endpoint& remote,
                           uint8_t protocol = IPPROTO_TCP);

// True when the policy lets every flow to `remote` pass, whatever its protocol, for certain: one
// pass over the rules, where two answers would take two. False may mean no more than that it did
// not look closely.
bool BypassesAll(const wire::Page& page, const wire::Endpoint& remote);

struct Ailment {
  wire::Trouble trouble = wire::Trouble::kFree;
  wire::Reason reason = wire::Reason::kNone;
};

// Returns what ails the socket with this cookie, kFree when nothing does.
Ailment FindTrouble(const wire::Page& page, uint64_t cookie);

}  // namespace latchkey::shim

#endif  // SHIM_PAGE_VIEW_H_
