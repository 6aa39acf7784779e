// The table of requests: who may send what, with how many descriptors. What has no row in it, or
// does not keep to its row, ends the connection (docs/PROTOCOL.md). The size of each type is
// checked before, by the codec.
#ifndef TOOLS_LATCHKEYD_SERVER_REQUESTS_H_
#define TOOLS_LATCHKEYD_SERVER_REQUESTS_H_

#include <cstdint>

#include "shim/wire/codec.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {

struct RequestTable {
  struct Row {
    wire::Type type;
    uint8_t phases;  // of Phase
    int fewest_descriptors;
    int most_descriptors;
    bool (Server::*handler)(Connection&, wire::Received&);  // false ends the connection
  };
  // Returns the row of `type`, or null for what is no request.
  static const Row* Find(wire::Type type);
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_REQUESTS_H_
