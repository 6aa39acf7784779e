// Network namespaces for measuring what SPD entries cost who sends: a device, a network behind it
// (10.0.0.0/8), and entries as a broker makes them for the peers of a held UDP socket.
#ifndef TESTS_BENCH_SPD_NETNS_H_
#define TESTS_BENCH_SPD_NETNS_H_

#include <cstdint>

#include "tools/unique_fd.h"

namespace latchkey::bench {

inline constexpr uint16_t kHeldPort = 4000;

// IPv4, network order: the peer of this number, from 0 on; below 65,536.
uint32_t PeerAddress(uint32_t number);

// Makes one (root). For sockets with `mark` and port kHeldPort: an ALLOW entry for each of the
// first `peers`, and a BLOCK beneath them; no entry at all where there are none. The namespace
// lasts as long as its descriptor. Ends the program where it cannot be had.
UniqueFd MakeSpdNetns(uint32_t peers, uint32_t mark);

// A UDP socket in there, unbound.
int SocketIn(int netns);

}  // namespace latchkey::bench

#endif  // TESTS_BENCH_SPD_NETNS_H_
