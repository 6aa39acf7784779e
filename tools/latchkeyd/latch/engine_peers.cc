// Whom a listener may answer: the SPD entries that it holds for its peers' SAs, as those come and
// go.

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/listener_plan.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

Prefix Host(const Address& address) {
  return Prefix{address, static_cast<uint8_t>(address.Bits())};
}

struct Reach {
  Prefix local;
  Prefix remote;

  auto operator<=>(const Reach&) const = default;
};

void AddReach(const Selector& selector, const SocketAddress& listening,
              const policy::Policy& policy, std::set<Reach>& reach) {
  for (const Family family : {Family::kV4, Family::kV6}) {
    if (selector.family != Family::kNone && selector.family != family) continue;
    const Prefix all{Address::AnyOf(family), 0};
    Prefix local = selector.family == Family::kNone ? all : selector.source;
    const Prefix remote = selector.family == Family::kNone ? all : selector.destination;
    if (!listening.address.IsAny()) {
      if (!local.Contains(listening.address)) continue;
      local = Host(listening.address);
    }
    Result<std::vector<Region>> regions = CutRegions(policy, listening, family);
    if (!regions) continue;
    for (const Region& region : *regions) {
      if (region.need != Need::kProtect || !region.remote.Overlaps(remote)) continue;
      reach.insert({local, region.remote.length > remote.length ? region.remote : remote});
    }
  }
}

// Returns between which addresses an outgoing SA can carry what a listener answers: in transport
// mode its own, in tunnel mode its selector's, cut so that one rule each decides about a part.
std::vector<Reach> ReachOf(const KnownSa& known, const SocketAddress& listening,
                           const policy::Policy& policy) {
  if (known.sa.protection.mode != Mode::kTunnel) {
    // A wildcard v6 listener has v4 peers too; one that is v6 only has no SYN to answer there.
    if (!listening.address.IsAny() && known.local() != listening.address) return {};
    return {{Host(known.local()), Host(known.remote())}};
  }
  std::set<Reach> reach;
  for (const Selector& selector : known.selectors()) AddReach(selector, listening, policy, reach);
  return {reach.begin(), reach.end()};
}

// Says who they are, and as whom we are known to them where that is the difference.
std::string NameAll(const std::set<std::optional<Identity>>& identities) {
  std::string text;
  for (const std::optional<Identity>& each : identities) {
    if (!text.empty()) text += " and ";
    if (!each) {
      text += "somebody unknown";
      continue;
    }
    text += "\"" + each->peer_id + "\"";
    const auto same = [&each](const std::optional<Identity>& other) {
      return other && other->peer_id == each->peer_id;
    };
    if (std::ranges::count_if(identities, same) == 1) continue;
    text += " (" + each->auth + ", with us as \"" + each->local_id + "\")";
  }
  return text + " have, or had, SAs for it since it listens";
}

// True when they are all of one peer, which has proved it in one way.
bool OfOnePeer(const std::set<std::optional<Identity>>& identities) {
  if (identities.empty() || !*identities.begin()) return false;  // nobody comes first
  const Identity& one = **identities.begin();
  return std::ranges::all_of(identities, [&one](const std::optional<Identity>& each) {
    return each->peer_id == one.peer_id && each->auth == one.auth;
  });
}

// Returns the entry by which the peer of an outgoing one gets in, and by no other SA.
Guard LetIn(const Guard& answers, const SocketAddress& listening) {
  Guard guard = answers;
  guard.out = false;
  guard.mark = 0;
  guard.selector = Mirrored(answers.selector);
  if (!listening.address.IsAny()) guard.selector.destination = Host(listening.address);
  return guard;
}

}  // namespace

// True when a listener takes nothing from `remote` that is not protected.
bool Engine::KeepsClearOut(const Entry& listener, const Address& remote) {
  return std::ranges::any_of(listener.sa_guards, [&remote](const Guard& guard) {
    return !guard.out && guard.selector.source.Contains(remote);
  });
}

// True when what came by a tunnel can have got in at `listener` from there by an entry of that
// tunnel's reqid alone, or not at all.
bool Engine::HoldsTunnels(const Entry* listener, const policy::Verdict& verdict,
                          const Address& remote) {
  if (listener == nullptr || verdict.implicit || verdict.rule == nullptr) return false;
  const std::optional<Mode>& mode = verdict.rule->protection.mode;
  return mode.value_or(Mode::kTransport) == Mode::kTransport || ByReqid(listener->guards, remote);
}

// Who may have sent what waits at the listener: whoever stood behind an SA for it since it listens.
// One peer to whom we were somebody else before counts as that no more, once all SAs of then are
// gone, but for what waited at that moment: an `elder` (LetGo, StartAnew).
std::set<std::optional<Identity>> Engine::IdentitiesAt(const Entry& listener, const Flow& flow,
                                                       bool by_reqid, bool elder) const {
  std::set<std::optional<Identity>> all = sas_.IdentitiesSince(flow, listener.created, by_reqid);
  uint64_t turn = 0;
  for (const auto& [prefix, when] : listener.anew) {
    if (prefix.Contains(flow.remote.address)) turn = std::max(turn, when);
  }
  if (turn == 0 || elder || !OfOnePeer(all)) return all;
  return sas_.IdentitiesSince(flow, listener.created, by_reqid, turn);
}

// A peer whose SAs are all of another identity of ours than before. True when what is queued is
// known: who comes from now on comes under these.
bool Engine::StartAnew(Entry& entry, const Flow& flow, const Prefix& remote,
                       const std::set<std::optional<Identity>>& identities, bool by_reqid) {
  if (identities.size() < 2 || !OfOnePeer(identities)) return false;
  constexpr int64_t kNow = std::numeric_limits<int64_t>::max();
  if (sas_.IdentitiesSince(flow, kNow, by_reqid).size() != 1) return false;
  if (!NoteQueued(entry, {remote}, entry.elders)) return false;
  entry.anew[remote] = sas_.turn();
  return true;
}

// Peers that have no SA left: what is queued came under those that there were.
void Engine::LetGo(Entry& entry) {
  std::set<Prefix> gone;
  std::erase_if(entry.waning, [&](const auto& ends) {
    Flow flow = entry.latch.flow;
    flow.local.address = ends.first.base;
    flow.remote = {ends.second.base, 0};
    if (!sas_.Carrying(flow, /*inbound=*/true).empty()) return false;
    gone.insert(ends.second);
    return true;
  });
  if (gone.empty() || !NoteQueued(entry, gone, entry.elders)) return;
  for (const Prefix& remote : gone) entry.anew[remote] = sas_.turn();
}

// Whom a listener leaves without an answer gets none that could tell: once for each time, the
// administrator is told.
void Engine::Tell(Entry& entry, const std::set<Address>* peers,
                  const std::map<Prefix, Error>& unserved) {
  std::erase_if(entry.unserved, [&](const auto& told) {
    const bool looked = peers == nullptr || told.first.length != told.first.base.Bits() ||
                        peers->contains(told.first.base);
    return looked && !unserved.contains(told.first);
  });
  for (const auto& [remote, why] : unserved) {
    // Who it is is being asked: what was told before stands until that is known.
    if (why.reason == Reason::kNone) continue;
    std::string& told = entry.unserved[remote];
    if (std::exchange(told, why.value) == why.value) continue;
    const Client client{entry.session, entry.policy, entry.requester, entry.hint.pid,
                        entry.latch.program};
    const Flow flow{Direction::kIn, kProtocolTcp, entry.latch.flow.local, {remote.base, 0}};
    observer_.OnRefusal(client, flow, why.reason, why.ToString());
  }
}

// Returns the entries by which a listener's peers are answered; `unnamed` gets those that keep the
// answers back until it is known whose they are.
std::vector<Guard> Engine::ListenerSaGuards(Entry& entry, const std::set<Address>* peers,
                                            std::vector<Guard>& unnamed) {
  std::vector<Guard> wanted;
  std::map<Prefix, Error> unserved;
  std::set<Flow> seen;
  const Flow& listening = entry.latch.flow;
  for (const auto& [key, known] : sas_.all()) {
    if (known.inbound || known.sa.larval || known.sa.reqid == 0) continue;
    const bool tunnel = known.sa.protection.mode != Mode::kTransport;
    if (peers != nullptr && !tunnel && !peers->contains(known.remote())) continue;
    // An SA of one flow's own answers that flow alone.
    const Selector& selector = known.sa.selector;
    const bool own = selector.OfOneFlow();
    if (own && selector.source_port != listening.local.port) continue;
    const uint16_t port = own ? selector.destination_port : 0;
    for (const auto& [local, remote] : ReachOf(known, listening.local, *entry.policy)) {
      const Flow flow{
          Direction::kIn, kProtocolTcp, {local.base, listening.local.port}, {remote.base, port}};
      if (!seen.insert(flow).second) continue;
      const policy::Verdict verdict = policy::Decide(system(), *entry.policy, entry.requester, flow,
                                                     /*same_host=*/false);
      if (verdict.outcome != policy::Outcome::kProtect || verdict.implicit) continue;
      const std::vector<const KnownSa*> out = sas_.Carrying(flow, /*inbound=*/false);
      const std::vector<const KnownSa*> in = sas_.Carrying(flow, /*inbound=*/true);
      // Whoever has an SA with us, be it the wrong one, comes under it or not at all.
      const bool optional = verdict.permit && !out.empty() && !in.empty();
      if (optional) {
        const ProtectionSpec& spec = verdict.rule->protection;
        wanted.push_back(RequireIn({listening.local.address, listening.local.port}, remote,
                                   spec.protocol, spec.mode.value_or(Mode::kTransport)));
      }
      Guard guard;
      guard.mark = options_.guard_mark;
      guard.selector.family = local.base.family;
      guard.selector.source = local;
      guard.selector.destination = remote;
      guard.selector.protocol = kProtocolTcp;
      guard.selector.source_port = listening.local.port;
      guard.selector.source_mask = 0xffff;
      guard.selector.destination_port = port;
      guard.selector.destination_mask = own ? 0xffff : 0;
      const bool by_reqid = HoldsTunnels(&entry, verdict, remote.base);
      std::set<std::optional<Identity>> identities = IdentitiesAt(entry, flow, by_reqid);
      if (StartAnew(entry, flow, remote, identities, by_reqid)) {
        identities = IdentitiesAt(entry, flow, by_reqid);
      }
      Result<SaPair> pair = ChoosePair(out, in, verdict.demand);
      if (identities.size() == 1 && *identities.begin() && pair) {
        const KnownSa& chosen = *pair->out;
        guard.action = RequireAction(chosen.sa.key.protocol);
        guard.reqid = chosen.sa.reqid;
        guard.mode = chosen.sa.protection.mode;
        guard.ends = EndsOf(chosen.sa.protection, chosen.who.verified.peering);
        wanted.push_back(guard);
        if (guard.mode == Mode::kTunnel && ByReqid(entry.guards, remote.base)) {
          wanted.push_back(LetIn(guard, listening.local));
        }
      } else if (!tunnel && !own && (optional || !verdict.permit) &&
                 (AwaitsName(out) || AwaitsName(in))) {
        guard.action = Guard::Action::kEsp;
        guard.reqid = PlaceholderReqid();
        unnamed.push_back(guard);
      } else if (optional) {
        wanted.push_back(guard);  // nor is it answered in clear
      }
      bool pending = false;
      for (const auto* list : {&out, &in}) {
        for (const KnownSa* each : *list) {
          identities.insert(each->vouched);
          pending = pending || each->who.pending();
        }
      }
      if (pending) {
        unserved.try_emplace(remote, Error{"", "", Reason::kNone});
      } else if (identities.size() > 1) {
        unserved[remote] = Error{"answer peers", NameAll(identities), Reason::kAmbiguousPeer};
      }
    }
  }
  Tell(entry, peers, unserved);
  return wanted;
}

void Engine::RefreshListener(Entry& entry, const std::set<Address>* peers) {
  LetGo(entry);
  std::vector<Guard> unnamed;
  const std::vector<Guard> wanted = ListenerSaGuards(entry, peers, unnamed);
  std::set<Guard> keep(wanted.begin(), wanted.end());
  keep.insert(unnamed.begin(), unnamed.end());
  for (const Guard& guard : held_.empty() ? std::vector<Guard>{} : wanted) LetAnswersGo(guard);
  const auto untouched = [peers](const Guard& guard) {
    const Prefix& remote = guard.out ? guard.selector.destination : guard.selector.source;
    return peers != nullptr && guard.mode == Mode::kTransport &&
           remote.length == remote.base.Bits() && !peers->contains(remote.base);
  };
  std::vector<Guard> held;
  // What is no longer allowed goes first: the standing BLOCK stands beneath.
  for (const Guard& guard : entry.sa_guards) {
    if (keep.contains(guard) || untouched(guard)) {
      held.push_back(guard);
    } else {
      guards_.Drop(guard);
      if (guard.out && guard.selector.destination_mask == 0 && !held_.contains(guard)) {
        entry.waning.insert({guard.selector.source, guard.selector.destination});
      }
    }
  }
  for (const Guard& guard : wanted) {
    entry.waning.erase({guard.selector.source, guard.selector.destination});
  }
  const std::set<Guard> present(held.begin(), held.end());
  bool began = false;
  for (const Guard& guard : wanted) {
    if (present.contains(guard)) continue;
    if (Result<void> done = HoldOver(guard); !done) {
      // A child's own entry, under a reqid that its peer has still, serves until the child is gone.
      if (Leaned(guard)) continue;
      observer_.OnWarning("a peer cannot be served: " + done.error().ToString());
      continue;
    }
    held.push_back(guard);
    began = began || (!guard.out && guard.reqid == 0);
    if (guard.selector.destination_mask == 0) continue;
    // Of two that match, the older counts: the one for all of the peer's flows comes after it.
    Guard wide = guard;
    wide.selector.destination_port = wide.selector.destination_mask = 0;
    guards_.MoveBack(wide.selector);
  }
  for (const Guard& guard : unnamed) {
    if (!present.contains(guard) && HoldBack(guard)) held.push_back(guard);
  }
  entry.sa_guards = std::move(held);
  EndHolds();
  LetGo(entry);
  if (began) NoteClearChildren(entry);
}

// Optional peers that just came by an SA: what waits to be accepted may have come in clear.
void Engine::NoteClearChildren(Entry& entry) {
  Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
  if (!live) {
    observer_.OnWarning("cannot list connections: " + live.error().ToString());
    entry.blind = true;
    return;
  }
  std::set<uint64_t> before = std::exchange(entry.clear_children, {});
  for (const LiveSocket& socket : *live) {
    if (socket.protocol != kProtocolTcp || socket.tcp_state == kTcpListen ||
        socket.local.port != entry.latch.flow.local.port ||
        database_.FindByCookie(socket.cookie) != nullptr) {
      continue;
    }
    if (before.contains(socket.cookie) || KeepsClearOut(entry, socket.remote.address)) {
      entry.clear_children.insert(socket.cookie);
    }
  }
}

// Adds to `noted` the cookies of what waits to be accepted and came from there, and forgets those
// that wait no more. False where it is not known what waits.
bool Engine::NoteQueued(const Entry& entry, const std::set<Prefix>& remotes,
                        std::set<uint64_t>& noted) {
  Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
  if (!live) {
    observer_.OnWarning("cannot list connections: " + live.error().ToString());
    return false;
  }
  const std::set<uint64_t> before = std::exchange(noted, {});
  for (const LiveSocket& socket : *live) {
    if (socket.protocol != kProtocolTcp || socket.tcp_state == kTcpListen ||
        socket.local.port != entry.latch.flow.local.port ||
        database_.FindByCookie(socket.cookie) != nullptr) {
      continue;
    }
    const auto there = [&socket](const Prefix& remote) {
      return remote.Contains(socket.remote.address);
    };
    if (before.contains(socket.cookie) || std::ranges::any_of(remotes, there)) {
      noted.insert(socket.cookie);
    }
  }
  return true;
}

}  // namespace latchkey::broker
