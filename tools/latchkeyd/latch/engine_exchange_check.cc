// What an end must be like after every step, what it must leave behind, and how it is told from
// others.
#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine_exchange.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;

// Of entries that keep packets back; no SA has such a reqid.
constexpr uint32_t kPlaceholders = 0xffff'fff0;

void Add(std::string& out, int64_t number) {
  out += std::to_string(number);
  out += ' ';
}

}  // namespace

void Side::CheckEstablished(const Entry& entry, std::string& wrong) const {
  const Latch& latched = entry.latch;
  const FakeKernel::Socket& socket = broker.kernel.sockets.at(fd);
  if (latched.identity != identity_) wrong += "another identity is latched\n";
  if (latched.protection != protection_) wrong += "another protection is latched\n";
  if (!broker.engine->system().spd.empty()) wrong += "established against the SPD\n";
  const SocketPolicy& policy = *socket.policy;
  if (policy.kind != Kind::kProtect) wrong += "established, and its socket is not protected\n";
  if ((socket.facts.mark & Options{}.guard_mark) == 0) wrong += "established without its mark\n";
  for (const Sa& sa : broker.kernel.sad) {
    const Flow& flow = latched.flow;
    const bool in = sa.Carries(flow.protocol, flow.remote, flow.local);
    if (!in && !sa.Carries(flow.protocol, flow.local, flow.remote)) continue;
    const uint32_t pinned = in ? policy.spi_in : policy.spi_out;
    if (sa.reqid != policy.reqid || (pinned != 0 && pinned != sa.key.spi)) continue;
    // The socket's policy admits it.
    const auto known = broker.engine->sas().all().find(sa.key);
    const bool verified =
        known != broker.engine->sas().all().end() && known->second.vouched == identity_;
    if (verified && owner.at(sa.key.spi) == peer) continue;
    if (latched.pin == Pin::kSpi) {
      wrong += "pinned to an SA of " + owner.at(sa.key.spi) + (verified ? "\n" : ", unverified\n");
      continue;
    }
    // Under reqid pins there is a window: until its event is read, and until the key manager has
    // answered; where that cannot, the time of grace runs.
    const bool unread = std::ranges::any_of(
        events, [&sa](const KernelEvent& event) { return event.sa.key == sa.key; });
    const Identified who = broker.keys.by_spi.contains(sa.key.spi)
                               ? broker.keys.by_spi.at(sa.key.spi)
                               : broker.keys.unknown;
    const bool in_doubt = who.why == Reason::kKmLost && entry.doubt_since != 0;
    if (!unread && !who.pending() && !in_doubt) {
      wrong += "admits an SA of " + owner.at(sa.key.spi) + "\n";
    }
  }
  if (!broker.kernel.HasGuard(FlowGuard(latched, Options{}.guard_mark))) {
    wrong += "established without its SPD entry\n";
  }
}

// As far as the broker can know.
bool Side::NothingInTheWay() const {
  if (!keys_up_ || !events.empty() || !broker.engine->system().spd.empty()) return false;
  const std::string us = broker.kernel.locals[0];
  bool in = false, out = false;
  for (const Sa& sa : broker.kernel.sad) {
    const auto said = said_.find(sa.key.spi);
    if (said == said_.end() || said->second != Identified::Kind::kKnown) return false;
    if (owner.at(sa.key.spi) != peer) return false;
    (sa.source == Address::Parse(us) ? out : in) = true;
  }
  return in && out;
}

std::string Side::Check() const {
  std::string wrong;
  const auto told = [this](State state) {
    const auto it = broker.observer.told.find({latch, state});
    return it == broker.observer.told.end() ? 0 : it->second;
  };
  const Entry* entry = this->entry();
  const State state = entry != nullptr ? entry->latch.state : State::kClosed;
  const FakeKernel::Socket& socket = broker.kernel.sockets.at(fd);
  if (told(State::kClosed) != (state == State::kClosed ? 1 : 0)) wrong += "its end is not told\n";
  const int broken = told(State::kBroken) - told(State::kEstablished);
  if (state != State::kClosed && broken != (state == State::kBroken ? 1 : 0)) {
    wrong += "told of " + std::to_string(told(State::kBroken)) + " breaks and " +
             std::to_string(told(State::kEstablished)) + " recoveries\n";
  }
  if (state == State::kEstablished) CheckEstablished(*entry, wrong);
  if (state == State::kBroken && socket.held) {
    if (socket.policy->kind != Kind::kBlock) wrong += "broken, and not blocked\n";
    if (socket.aborted == entry->latch.suspends) wrong += "broken against its disposition\n";
    if (!entry->guards.empty()) wrong += "broken, with an SPD entry\n";
    if (entry->latch.suspends && !entry->admin_broken && NothingInTheWay()) {
      wrong += "suspended, and nothing is in the way\n";
    }
  }
  const FakeKernel& kernel = broker.kernel;
  if (kernel.borrowed != 0) wrong += "a borrowed descriptor is left\n";
  const bool unnamed = std::ranges::any_of(kernel.guards, [](const Guard& guard) {
    return guard.out && guard.reqid >= kPlaceholders;
  });
  const auto pending = [](const auto& each) { return each.second.who.pending(); };
  if (unnamed && std::ranges::none_of(broker.engine->sas().all(), pending)) {
    wrong += "an answer waits for no name\n";
  }
  if (kernel.holding != unnamed) wrong += "packets are held, or an answer is not\n";
  if (broker.observer.journal.size() != kernel.guards.size() ||
      !std::ranges::all_of(kernel.guards, [this](const Guard& guard) {
        return broker.observer.journal.contains(guard);
      })) {
    wrong += "the journal differs from the SPD\n";
  }
  return wrong;
}

std::string Side::Finish() {
  std::string wrong;
  for (auto& [number, socket] : broker.kernel.sockets) socket.live = socket.held = false;
  while (!wire.empty()) Apply();
  while (!events.empty()) Read();
  for (const int64_t wait : {60'000, 31'000, 70'000}) {
    broker.kernel.now += wait;
    broker.engine->Tick(/*reap_now=*/true);
  }
  if (!broker.engine->database().entries().empty()) wrong += "a latch is left behind\n";
  if (broker.kernel.guards.size() != 2) wrong += "an SPD entry is left behind\n";
  if (broker.observer.journal.size() != 2) wrong += "a guard is left in the journal\n";
  if (broker.kernel.holding || broker.kernel.borrowed != 0) wrong += "a hold is left behind\n";
  if (broker.observer.told[{latch, State::kClosed}] != 1) wrong += "its end is not told once\n";
  return wrong;
}

void Side::CollectSpis(std::set<uint32_t>& spis) const {
  for (const Sa& sa : broker.kernel.sad) spis.insert(sa.key.spi);
  for (const auto& [key, known] : broker.engine->sas().all()) spis.insert(key.spi);
  for (const KernelEvent& event : events) spis.insert(event.sa.key.spi);
  for (const WireMessage& message : wire) {
    for (const Sa& sa : message.sas) spis.insert(sa.key.spi);
  }
  if (const Entry* entry = this->entry()) {
    spis.insert(entry->latch.spi_in);
    spis.insert(entry->latch.spi_out);
  }
}

std::string Side::Describe() const {
  std::set<uint32_t> spis;
  CollectSpis(spis);
  std::map<uint32_t, int> ranks;
  for (const uint32_t spi : spis) ranks.emplace(spi, static_cast<int>(ranks.size()));
  std::string out;
  Describe(out, ranks);
  return out;
}

void Side::Describe(std::string& out, const std::map<uint32_t, int>& ranks) const {
  const auto rank = [&](uint32_t spi) {
    const auto it = ranks.find(spi);
    Add(out, it == ranks.end() ? -1 : it->second);
  };
  const int64_t now = broker.kernel.now;
  const auto since = [&](int64_t when) { Add(out, when == 0 ? -1 : now - when); };
  Add(out, now);
  Add(out, keys_up_ ? 1 : 0);
  for (const Sa& sa : broker.kernel.sad) {
    rank(sa.key.spi);
    const auto said = said_.find(sa.key.spi);
    out += said == said_.end() ? '?' : static_cast<char>('0' + static_cast<int>(said->second));
    out += owner.at(sa.key.spi)[0];
  }
  out += '|';
  for (const auto& [key, known] : broker.engine->sas().all()) {
    rank(key.spi);
    out += static_cast<char>('0' + static_cast<int>(known.who.kind));
    out += known.vouched ? known.vouched->peer_id[0] : '-';
    since(known.who.pending() ? known.pending_since : 0);
  }
  out += '|';
  for (const KernelEvent& event : events) {
    out += static_cast<char>('a' + static_cast<int>(event.kind));
    rank(event.sa.key.spi);
  }
  out += '|';
  for (const WireMessage& message : wire) {
    out += message.add ? '+' : '-';
    for (const Sa& sa : message.sas) rank(sa.key.spi);
  }
  out += '|';
  Add(out, static_cast<int64_t>(broker.kernel.spd.size()));
  Add(out, static_cast<int64_t>(broker.engine->spd().size()));
  Add(out, static_cast<int64_t>(broker.kernel.guards.size()));
  Add(out, broker.kernel.holding ? 1 : 0);
  const FakeKernel::Socket& socket = broker.kernel.sockets.at(fd);
  Add(out, (socket.live ? 1 : 0) + (socket.held ? 2 : 0) + (socket.aborted ? 4 : 0));
  if (const Entry* entry = this->entry()) {
    const Latch& latched = entry->latch;
    Add(out, static_cast<int>(latched.state));
    Add(out, static_cast<int>(latched.reason));
    rank(latched.spi_out);
    rank(latched.spi_in);
    Add(out, socket.policy ? static_cast<int>(socket.policy->kind) : -1);
    Add(out, latched.reqid);
    since(entry->stalled_since);
    since(entry->doubt_since);
    since(entry->peer_dead_at);
    since(entry->moved_out_at);
    since(entry->broken_since);
    since(entry->rekindled_at);
    Add(out, (entry->admin_broken ? 1 : 0) + (entry->silenced ? 2 : 0) + (entry->seen ? 4 : 0));
  }
}

}  // namespace latchkey::broker
