// The kernel's messages about SAs and SPD entries (tools/latchkeyd/kernel/xfrm_parse.h). They come
// from the kernel, yet a version of it that we do not know may send what we do not expect.
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/fuzz/check.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Aligned, and in memory of exactly its size, as a message in a netlink buffer is at worst.
  if (size < sizeof(nlmsghdr)) return 0;
  std::vector<uint8_t> message(data, data + size);
  nlmsghdr header;
  std::memcpy(&header, message.data(), sizeof(header));
  header.nlmsg_len = static_cast<uint32_t>(size);
  std::memcpy(message.data(), &header, sizeof(header));
  const std::span<const uint8_t> span(message);
  const auto sa = latchkey::broker::ParseSa(span);
  if (sa) latchkey::fuzz::Check(!sa->protection.ToString().empty(), "an SA has a protection");
  (void)latchkey::broker::ParseSpdEntry(span);
  (void)latchkey::broker::ParseSpdDefault(span);
  (void)latchkey::broker::ParseEvent(span);
  return 0;
}
