#include "tools/latchkeyd/latch/engine_exchange.h"

#include <algorithm>
#include <utility>

namespace latchkey::broker {
namespace {

constexpr char kAlice[] = "10.9.0.1";
constexpr char kBob[] = "10.9.0.2";
constexpr uint32_t kReqid = 7;

std::shared_ptr<const policy::Policy> PolicyFor(const std::string& peer, Pin pin,
                                                policy::OnBreak on_break) {
  policy::Rule rule = ProtectRule({peer});
  rule.protection.pin = pin;
  rule.on_break = on_break;
  return MakePolicy({rule});
}

Identified NameOf(const std::string& who) {
  return Identified::Known({Identity{who, "me", "pubkey"}, false, {}});
}

void Add(std::string& out, int64_t number) {
  out += std::to_string(number);
  out += ' ';
}

}  // namespace

Side::Side(const std::string& us, const std::string& whom, Pin pin, policy::OnBreak on_break)
    : broker(PolicyFor(whom, pin, on_break)), peer(whom) {
  broker.kernel.locals = {us};
}

void Side::Tell() {
  FakeKeyManager& keys = broker.keys;
  keys.by_spi.clear();
  keys.unknown = keys_up_ ? Identified::Pending() : Identified::Nobody(Reason::kKmLost);
  if (!keys_up_) return;
  for (const auto& [spi, kind] : said_) {
    if (kind == Identified::Kind::kKnown) keys.by_spi[spi] = NameOf(owner.at(spi));
    if (kind == Identified::Kind::kNobody) keys.by_spi[spi] = Identified::Nobody(Reason::kKmLost);
  }
}

void Side::Apply() {
  const WireMessage message = std::move(wire.front());
  wire.pop_front();
  for (const Sa& sa : message.sas) {
    std::vector<Sa>& sad = broker.kernel.sad;
    const size_t before = sad.size();
    std::erase_if(sad, [&sa](const Sa& each) { return each.key == sa.key; });
    if (message.add) {
      sad.push_back(sa);
    } else if (sad.size() == before) {
      continue;
    }
    using EventKind = KernelEvent::Kind;
    events.push_back({message.add ? EventKind::kSaAdded : EventKind::kSaDeleted, sa});
  }
}

void Side::Read() {
  const KernelEvent event = events.front();
  events.pop_front();
  broker.engine->OnEvents({event});
}

bool Side::Unnamed() const {
  return keys_up_ && std::ranges::any_of(broker.kernel.sad, [this](const Sa& sa) {
           return !said_.contains(sa.key.spi);
         });
}

void Side::Learn() {
  for (const Sa& sa : broker.kernel.sad) said_.emplace(sa.key.spi, Identified::Kind::kKnown);
  Tell();
  broker.KeysChanged();
}

void Side::KeysLost() {
  keys_up_ = false;
  Tell();
  broker.KeysChanged();
}

void Side::KeysBack(bool knowing) {
  keys_up_ = true;
  said_.clear();
  for (const Sa& sa : broker.kernel.sad) {
    said_[sa.key.spi] = knowing ? Identified::Kind::kKnown : Identified::Kind::kNobody;
  }
  Tell();
  broker.KeysChanged();
}

void Side::Die() {
  if (!keys_up_) return;
  KeyEvent event;
  event.kind = KeyEvent::Kind::kPeerDead;
  event.peer = identity_;
  event.remote = entry() != nullptr ? entry()->latch.flow.remote.address : Address{};
  broker.keys.events.push_back(event);
  broker.engine->OnKeys();
}

void Side::ChangeSpd() {
  std::vector<SpdEntry>& spd = broker.kernel.spd;
  if (spd.empty()) {
    SpdEntry discard;
    discard.dir = 1;
    discard.block = discard.bare = true;
    spd.push_back(discard);
  } else {
    spd.clear();
  }
  events.push_back({KernelEvent::Kind::kSpdChanged, {}});
}

Side::Saved Side::Save() {
  broker.observer.log.clear();
  auto engine = std::make_unique<Engine>(*broker.engine);
  return {broker.kernel, broker.keys, broker.observer, std::move(engine), wire,
          events,        intruder,    said_,           keys_up_};
}

void Side::Restore(const Saved& saved) {
  broker.kernel = saved.kernel;
  broker.keys = saved.keys;
  broker.observer = saved.observer;
  // A copy speaks to the same kernel, key manager and observer.
  broker.engine = std::make_unique<Engine>(*saved.engine);
  wire = saved.wire;
  events = saved.events;
  intruder = saved.intruder;
  said_ = saved.said;
  keys_up_ = saved.keys_up;
}

Exchange::Exchange(Pin pin, policy::OnBreak on_break, bool bob_first)
    : alice(kAlice, "bob", pin, on_break),
      bob(kBob, "alice", pin, on_break),
      bobs_turn_(bob_first) {
  pair_ = MakePair();
  for (Side* side : {&alice, &bob}) {
    side->wire.push_back({true, pair_});
    side->Apply();
    side->Tell();
    while (!side->events.empty()) side->Read();
    side->Learn();
  }
  alice.fd = alice.broker.Socket();
  alice.latch = alice.broker.Connect(alice.fd, kBob).latch;
  Broker& server = bob.broker;
  server.Listen(server.Listener("0.0.0.0", 443));
  const SocketAddress client = alice.broker.SocketOf(alice.fd).facts.local;
  bob.fd = server.kernel.AddSocket(At(kBob, 443), client, false, 1);
  server.SocketOf(bob.fd).facts.mark = Options{}.guard_mark;  // from its listener
  bob.latch = server.Accept(bob.fd).latch;
  for (Side* side : {&alice, &bob}) {
    side->broker.engine->Tick(/*reap_now=*/true);
    if (side->entry() == nullptr) continue;
    side->identity_ = side->entry()->latch.identity;
    side->protection_ = side->entry()->latch.protection;
  }
}

std::vector<Sa> Exchange::MakePair() {
  std::vector<Sa> made = alice.broker.kernel.AddPair(kReqid, kBob);
  std::erase_if(alice.broker.kernel.sad,
                [&](const Sa& sa) { return sa.key == made[0].key || sa.key == made[1].key; });
  for (const Sa& sa : made) {
    alice.owner[sa.key.spi] = "bob";
    bob.owner[sa.key.spi] = "alice";
  }
  return made;
}

void Exchange::Rekey() {
  const std::vector<Sa> fresh = MakePair();
  const Sa& out = fresh[0];
  const Sa& in = fresh[1];
  // Who begins has both new SAs at once and deletes its old outgoing one first; the other end has
  // its new incoming one long before the outgoing one.
  const auto begin = [&](Side& side, const Sa& goes, const Sa& comes, const Sa& old_goes,
                         const Sa& old_comes) {
    side.wire.push_back({true, {comes, goes}});
    side.wire.push_back({false, {old_goes}});
    side.wire.push_back({false, {old_comes}});
  };
  const auto answer = [&](Side& side, const Sa& goes, const Sa& comes) {
    side.wire.push_back({true, {comes}});
    side.wire.push_back({true, {goes}});
    side.wire.push_back({false, pair_});
  };
  if (bobs_turn_) {
    begin(bob, in, out, pair_[1], pair_[0]);
    answer(alice, out, in);
  } else {
    begin(alice, out, in, pair_[0], pair_[1]);
    answer(bob, in, out);
  }
  bobs_turn_ = !bobs_turn_;
  pair_ = fresh;
}

void Exchange::Down() {
  for (Side* side : {&alice, &bob}) {
    side->wire.push_back({false, pair_});
    side->Die();
  }
  pair_.clear();
}

void Exchange::Intrude(Side& side) {
  side.intruder = MakePair();
  for (const Sa& sa : side.intruder) side.owner[sa.key.spi] = "mallory";
  side.wire.push_front({true, side.intruder});
  side.Apply();
}

void Exchange::Leave(Side& side) {
  side.wire.push_front({false, std::exchange(side.intruder, {})});
  side.Apply();
}

void Exchange::Pass(int64_t milliseconds) {
  alice.broker.Pass(milliseconds);
  bob.broker.Pass(milliseconds);
}

std::string Exchange::Check() const {
  std::string wrong;
  if (const std::string a = alice.Check(); !a.empty()) wrong += "alice: " + a;
  if (const std::string b = bob.Check(); !b.empty()) wrong += "bob: " + b;
  return wrong;
}

std::string Exchange::Describe() const {
  std::set<uint32_t> spis;
  alice.CollectSpis(spis);
  bob.CollectSpis(spis);
  for (const Sa& sa : pair_) spis.insert(sa.key.spi);
  std::map<uint32_t, int> ranks;
  for (const uint32_t spi : spis) ranks.emplace(spi, static_cast<int>(ranks.size()));
  std::string out(bobs_turn_ ? "b" : "a");
  for (const Sa& sa : pair_) Add(out, ranks.at(sa.key.spi));
  alice.Describe(out, ranks);
  out += '/';
  bob.Describe(out, ranks);
  return out;
}

void Exchange::Restore(const Saved& saved, bool alices, bool bobs) {
  if (alices) alice.Restore(saved.alice);
  if (bobs) bob.Restore(saved.bob);
  pair_ = saved.pair;
  bobs_turn_ = saved.bobs_turn;
}

}  // namespace latchkey::broker
