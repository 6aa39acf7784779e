// explain: what would be decided about a flow, and why. The same pure function answers as in the
// broker; with one that we may ask, over the SPD and SAD as they are now.

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "policy/decide.h"
#include "policy/system_parse.h"
#include "tools/latchkey/charon_lists.h"
#include "tools/latchkey/client.h"
#include "tools/latchkey/explain_child.h"
#include "tools/latchkey/explain_pad.h"
#include "tools/latchkey/explain_text.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/name_servers.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"
#include "tools/latchkeyd/latch/protect.h"
#include "tools/latchkeyd/server/admission.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

using Json = nlohmann::json;

constexpr uint16_t kDomainPort = 53;
constexpr auto kCharonPatience = std::chrono::seconds(5);

std::expected<std::string, std::string> ReadText(const std::string& name) {
  const UniqueFd file(open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0) {
    return std::unexpected(name + ": " + std::strerror(errno));
  }
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t count = pread(file.get(), text.data(), text.size(), 0);
  if (count != static_cast<ssize_t>(text.size())) return std::unexpected(name + ": cannot be read");
  return text;
}

std::expected<std::vector<Address>, std::string> Resolve(const std::string& host) {
  if (const auto address = Address::Parse(host)) return std::vector{*address};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return std::unexpected(host + ": " + gai_strerror(error));
  }
  std::vector<Address> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (each->ai_family == AF_INET) {
      addresses.push_back(
          Address::FromV4(&reinterpret_cast<const sockaddr_in*>(each->ai_addr)->sin_addr));
    } else if (each->ai_family == AF_INET6) {
      addresses.push_back(
          Address::FromV6(&reinterpret_cast<const sockaddr_in6*>(each->ai_addr)->sin6_addr));
    }
  }
  freeaddrinfo(found);
  return addresses;
}

// The address the kernel would send from; nothing where there is no route.
std::optional<Address> SourceFor(const Address& remote) {
  const bool v4 = remote.family == Family::kV4;
  const UniqueFd probe(socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage to{};
  socklen_t length = v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  to.ss_family = v4 ? AF_INET : AF_INET6;
  if (v4) {
    auto& in = reinterpret_cast<sockaddr_in&>(to);
    in.sin_port = htons(9);
    std::memcpy(&in.sin_addr, remote.octets.data(), 4);
  } else {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(to);
    in6.sin6_port = htons(9);
    std::memcpy(&in6.sin6_addr, remote.octets.data(), 16);
  }
  if (!probe || connect(probe.get(), reinterpret_cast<const sockaddr*>(&to), length) != 0 ||
      getsockname(probe.get(), reinterpret_cast<sockaddr*>(&to), &length) != 0) {
    return std::nullopt;
  }
  return v4 ? Address::FromV4(&reinterpret_cast<const sockaddr_in&>(to).sin_addr)
            : Address::FromV6(&reinterpret_cast<const sockaddr_in6&>(to).sin6_addr);
}

std::optional<uint32_t> UserNumber(const std::string& user) {
  if (user.empty()) return getuid();
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), number);
  if (error == std::errc{} && end == user.data() + user.size()) return number;
  const passwd* entry = getpwnam(user.c_str());
  return entry == nullptr ? std::nullopt : std::optional<uint32_t>(entry->pw_uid);
}

// What there is to decide by.
struct Facts {
  std::shared_ptr<const policy::SystemPolicy> system;
  std::string system_name;
  std::optional<PolicyFile> file;
  std::shared_ptr<const policy::Policy> policy = std::make_shared<const policy::Policy>();
  policy::Requester requester;
  bool live = false;
  std::string broker;  // where we asked, or why not
  std::vector<SpdEntry> spd;
  broker::SaTable sas;
  Result<CharonLists> charon;
  std::optional<policy::Pad> pad;  // where the SAD is not seen
};

std::string Lines(const std::vector<policy::ParseError>& errors) {
  std::string lines;
  for (const policy::ParseError& error : errors) {
    lines += (lines.empty() ? "" : "\n") + error.ToString();
  }
  return lines;
}

std::expected<void, Refusal> ReadSystem(const ExplainOptions& options, Facts& facts) {
  facts.system_name = options.system;
  policy::SystemPolicy system;
  if (access(options.system.c_str(), F_OK) == 0) {
    const auto text = ReadText(options.system);
    if (!text) return Refuse(kExitNo, text.error());
    auto parsed = policy::ParseSystem(*text, options.system);
    if (!parsed) return Refuse(kExitNo, Lines(parsed.error()));
    system = std::move(*parsed);
  }
  facts.system = std::make_shared<const policy::SystemPolicy>(std::move(system));
  return {};
}

std::expected<void, Refusal> ReadPolicy(const ExplainOptions& options, Facts& facts) {
  const auto uid = UserNumber(options.user);
  if (!uid) return Refuse(kExitNo, "no user \"" + options.user + "\"");
  facts.requester.uid = *uid;
  const broker::Admission admission(facts.system, "/var/lib/latchkey");
  facts.requester.grants = admission.GrantsOf(*uid);
  if (options.policy.empty()) return {};
  auto file = LoadPolicy(options.policy);
  if (!file) return Refuse(kExitNo, file.error().text);
  broker::SessionRecord record;
  record.uid = *uid;
  record.policy_name = options.policy;
  record.has_policy = true;
  if (!file->policy.program.empty()) record.program = file->policy.program.front();
  const auto text = ReadText(options.policy);
  if (!text) return Refuse(kExitNo, text.error());
  record.policy_text = *text;
  if (file->signature) {
    const auto signature = ReadText(options.policy + ".minisig");
    if (!signature) return Refuse(kExitNo, signature.error());
    record.signature = *signature;
  }
  // As for a session that is there already: explaining must not use a serial up.
  auto admitted = admission.Admit(record, /*fresh=*/false);
  if (!admitted) return Refuse(kExitNo, admitted.error().ToString());
  facts.policy = admitted->policy;
  facts.requester.grants.Add(admitted->signer);
  return {};
}

// Where nobody says what SAs there are, the PAD still says whose they would be.
std::expected<void, Refusal> ReadPad(const ExplainOptions& options, Facts& facts) {
  if (facts.live || access(options.pad.c_str(), F_OK) != 0) return {};
  const auto text = ReadText(options.pad);
  if (!text) return Refuse(kExitNo, text.error());
  auto parsed = policy::ParsePad(*text, options.pad);
  if (!parsed) return Refuse(kExitNo, Lines(parsed.error()));
  facts.pad = std::move(*parsed);
  return {};
}

void AskBroker(const ExplainOptions& options, Facts& facts) {
  if (geteuid() != 0) {
    facts.broker = "the broker tells what the SPD and SAD hold to root alone";
    return;
  }
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  if (brokers.empty()) {
    facts.broker = problems.empty() ? "no broker" : problems.front();
    return;
  }
  const auto spd = brokers.front().client.Spd();
  const auto sad = brokers.front().client.Sad();
  if (!spd || !sad) {
    facts.broker = spd ? sad.error() : spd.error();
    return;
  }
  facts.live = true;
  facts.charon = ListCharon(options.vici, kCharonPatience);
  facts.broker = brokers.front().path;
  for (const broker::OwnedEntry& owned : *spd) {
    if (owned.owner == wire::Owner::kSystem) facts.spd.push_back(owned.entry);
  }
  for (const broker::KnownSa& known : *sad) {
    facts.sas.Put(known.sa, known.inbound, known.who, 0);
  }
}

// What a connect would do where there is no SA: have one negotiated, if charon has a child for it.
void AskForChild(const Facts& facts, Explanation& answer) {
  Result<broker::vici::Choice> child = facts.charon
                                           ? ChildFor(*facts.charon, answer.flow, answer.verdict)
                                           : std::unexpected(facts.charon.error());
  if (child) {
    answer.child = std::move(*child);
    answer.reason = Reason::kNone;
  } else if (child.error().reason != Reason::kNoSa) {
    answer.reason = child.error().reason;
    answer.detail = child.error().value;
  }
}

Explanation ExplainOne(const ExplainOptions& options, const Facts& facts, const Address& address) {
  Explanation answer;
  Flow& flow = answer.flow;
  flow.direction = options.in ? Direction::kIn : Direction::kOut;
  flow.protocol = options.protocol == "udp" ? kProtocolUdp : kProtocolTcp;
  flow.remote = {address, options.in ? uint16_t{0} : options.port};
  flow.local = {SourceFor(address).value_or(Address::AnyOf(address.family)),
                options.in ? options.port : uint16_t{0}};
  const bool same_host = flow.SameHost();
  answer.verdict =
      policy::Decide({*facts.system, facts.spd}, *facts.policy, facts.requester, flow, same_host);
  answer.reason = answer.verdict.reason;
  if (flow.protocol == kProtocolUdp) {
    Flow unconnected = flow;
    unconnected.direction = Direction::kBoth;
    const policy::Rule* const counts = policy::FirstMatch(*facts.policy, unconnected);
    const policy::Rule* const rule = answer.verdict.rule;
    const bool passes = rule != nullptr && policy::LetsPass(rule->action);
    if (counts != nullptr && counts != rule && !(passes && policy::LetsPass(counts->action))) {
      answer.unconnected = counts;
    }
  }
  if (answer.verdict.outcome != policy::Outcome::kProtect) return answer;
  if (facts.pad) answer.pad = NamesByPad(*facts.pad, flow, answer.verdict.demand);
  if (!facts.live) return answer;
  const auto out = facts.sas.Carrying(flow, /*inbound=*/false);
  const auto in = facts.sas.Carrying(flow, /*inbound=*/true);
  const Result<broker::SaPair> pair = broker::ChoosePair(out, in, answer.verdict.demand);
  if (pair) {
    answer.sa = *pair->out;
  } else {
    answer.reason = pair.error().reason;
    answer.detail = pair.error().value;
    if (answer.reason == Reason::kNoSa && !options.in) AskForChild(facts, answer);
    answer.clear = broker::IsLack(answer.reason) && answer.verdict.permit.has_value();
  }
  return answer;
}

}  // namespace

int Explain(const ExplainOptions& options) {
  if (options.protocol != "tcp" && options.protocol != "udp") {
    return Report({kExitUsage, "explain: \"" + options.protocol + "\": expected tcp or udp"});
  }
  if (options.port == 0) return Report({kExitUsage, "explain: expected a port from 1 to 65535"});
  Facts facts;
  if (auto read = ReadSystem(options, facts); !read) return Report(read.error());
  if (auto read = ReadPolicy(options, facts); !read) return Report(read.error());
  AskBroker(options, facts);
  if (auto read = ReadPad(options, facts); !read) return Report(read.error());
  const auto addresses = Resolve(options.address);
  if (!addresses) return Report({kExitNo, addresses.error()});

  const Source source{
      options.policy, facts.system_name, facts.live, facts.broker, facts.pad ? options.pad : "",
      facts.requester};
  int exit = kExitYes;
  std::string text;
  Json list = Json::array();
  for (const Address& address : *addresses) {
    const Explanation answer = ExplainOne(options, facts, address);
    if (!Passes(answer)) exit = kExitNo;
    text += (text.empty() ? "" : "\n") + ExplainText(answer, source);
    list.push_back(ExplainJson(answer, source));
  }
  if (options.json) {
    const Json document = {{"schema", 1}, {"explanations", std::move(list)}};
    text = document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  // Behind the fence it is not the shim that asks for names.
  const bool named = !Address::Parse(options.address);
  if (!options.policy.empty() && !options.in && (named || options.port == kDomainPort)) {
    const std::string hint = NameServerHint(
        FencedOff(ReadNameServers(options.resolv_conf), *facts.policy, *facts.system));
    if (!hint.empty()) Report({kExitYes, options.policy + ": " + hint});
  }
  const int printed = Print(text);
  return printed == kExitYes ? exit : printed;
}

}  // namespace latchkey::tool
