#include "tools/latchkey/name_servers.h"

#include <netinet/in.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "policy/compile.h"
#include "shim/page_view.h"

namespace latchkey::tool {
namespace {

constexpr uint16_t kDomain = 53;

wire::Endpoint DomainOf(const Address& server) {
  wire::Endpoint endpoint{};
  const bool v4 = server.family == Family::kV4;
  endpoint.family = v4 ? AF_INET : AF_INET6;
  endpoint.port = kDomain;
  std::memcpy(endpoint.address, server.octets.data(), v4 ? 4 : 16);
  return endpoint;
}

}  // namespace

std::vector<Address> ReadNameServers(const std::string& name) {
  std::vector<Address> servers;
  std::ifstream file(name);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string keyword;
    std::string text;
    if (!(words >> keyword >> text) || keyword != "nameserver") continue;
    // A link-local one has its interface behind it.
    if (const auto server = Address::Parse(text.substr(0, text.find('%')))) {
      servers.push_back(*server);
    }
  }
  return servers;
}

std::vector<Address> FencedOff(const std::vector<Address>& servers, const policy::Policy& policy,
                               const policy::SystemPolicy& system) {
  const std::vector<SpdEntry> nothing;
  const policy::System all{system, nothing};
  const auto page = std::make_unique<wire::Page>();
  policy::CompileInto(policy, &all, *page);
  std::vector<Address> fenced_off;
  if ((page->flags.load() & wire::kPageNoRules) != 0) return fenced_off;
  for (const Address& server : servers) {
    // It connects its UDP sockets, and goes to TCP for long answers.
    const wire::Endpoint domain = DomainOf(server);
    if (shim::SettleConnect(*page, domain, IPPROTO_UDP) != wire::Settle::kBypass ||
        shim::SettleConnect(*page, domain, IPPROTO_TCP) != wire::Settle::kBypass) {
      fenced_off.push_back(server);
    }
  }
  return fenced_off;
}

std::string NameServerHint(const std::vector<Address>& fenced_off) {
  if (fenced_off.empty()) return {};
  std::string list;
  for (const Address& server : fenced_off) {
    list += (list.empty() ? "\"" : ", \"") + server.ToString() + "\"";
  }
  return "behind the fence the C library does not reach its name servers; the rule that lets it, "
         "before those that stand in the way: [[rule]] name = \"dns\" direction = \"out\" remote = "
         "[" +
         list + "] remote_port = [53] action = \"bypass\"";
}

}  // namespace latchkey::tool
