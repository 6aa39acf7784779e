// Receives a client's message without ever waiting for what it brought.
//
// The codec's ReceiveMessage closes what a bad message brings, and so does the kernel with
// descriptors that find no room: both would wait where a client made that descriptor's end slow
// (offload.h). Here there is room for all that one message can carry, and the caller closes them.
#ifndef TOOLS_LATCHKEYD_SERVER_RECEIVE_H_
#define TOOLS_LATCHKEYD_SERVER_RECEIVE_H_

#include <vector>

#include "shim/wire/codec.h"

namespace latchkey::broker {

// As wire::ReceiveMessage() without waiting, but for the descriptors: whatever the result, all that
// came are in `descriptors`, the caller's to close, and `received` holds copies of the first two.
int ReceiveRequest(int socket, wire::Received& received, std::vector<int>& descriptors);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_RECEIVE_H_
