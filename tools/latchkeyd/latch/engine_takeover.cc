// What a broker before us left behind: found again, verified anew or broken, or cleared away.

#include <algorithm>
#include <ranges>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

Result<void> Engine::Start(Legacy legacy) {
  if (Result<void> known = LookForNoXfrm(); !known) return known;
  for (const Guard& guard : legacy.guards) guards_.Inherit(guard);
  for (const Family family : {Family::kV4, Family::kV6}) {
    if (Result<void> held = guards_.Hold(StandingBlock(family), options_.shared_guards); !held) {
      return held;
    }
  }
  sas_.BeginInheriting(legacy.vouchers);
  Result<void> read = Resynchronise();
  sas_.EndInheriting();
  if (!read) return read;
  for (const Voucher& voucher : legacy.vouchers) {
    if (sas_.Find(voucher.sa.key) == nullptr) departed_.push_back(voucher);
  }
  database_.SkipIds(legacy.last_id);
  int entries = legacy.incomplete ? RemoveUnknownGuards(/*out=*/true) : 0;
  if (!legacy.latches.empty() || legacy.incomplete) {
    Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
    if (!live) return std::unexpected(live.error());
    Result<std::unordered_set<uint64_t>> held = kernel_.HeldSocketInodes();
    if (!held) return std::unexpected(held.error());
    // Of two that one socket had, the later is its own.
    for (Entry& entry : std::views::reverse(legacy.latches)) {
      const bool suspect = legacy.suspects.contains(entry.latch.id);
      Adopt(std::move(entry), *live, *held, suspect);
    }
    for (const uint64_t id : legacy.suspects) {
      Entry* suspect = database_.Find(id);
      if (suspect == nullptr || suspect->latch.state == State::kListener) continue;
      // It may have been the administrator who broke it: only he takes that back.
      suspect->admin_broken = suspect->latch.suspends;
      Break(*suspect, Reason::kSuspectGap);
    }
    const int sockets = legacy.incomplete ? CutOffUnknown(*live) : 0;
    // A proof after the sockets that it may be for.
    if (legacy.incomplete) entries += RemoveUnknownGuards(/*out=*/false);
    if (sockets + entries > 0) {
      observer_.OnWarning("without a record: " + std::to_string(sockets) + " sockets, cut off; " +
                          std::to_string(entries) + " SPD entries, taken away");
    }
  }
  guards_.Sweep();
  if (Result<void> done = DropLeftLarvals(); !done) return done;
  if (Result<void> done = ReadSpd(); !done) return done;
  observer_.OnSystem();
  CheckSystem();
  CheckAll();
  return {};
}

// What the kernel began for want of an SA under entries of ours bears their mark. With the last of
// them gone nobody waits for it, and it would stay until the kernel gives it up (with charon's
// defaults after 165 s). Of another broker here, whose entries stand, it is begun anew with the
// next packet.
Result<void> Engine::DropLeftLarvals() {
  const Result<std::vector<Sa>> sad = kernel_.DumpSad();
  if (!sad) return std::unexpected(sad.error());
  for (const Sa& sa : *sad) {
    const bool marked = sa.mark == options_.guard_mark && sa.mark_mask == options_.guard_mark;
    const bool begun = sa.larval && sa.key.protocol != SaProtocol::kNone;
    if (begun && marked && sa.if_id == 0) kernel_.DropLarval(sa);
  }
  return {};
}

// What bears our mark, or is a tag's proof, and nobody knows. Other incoming entries bear no mark:
// such ones stay, and keep out what they kept out.
int Engine::RemoveUnknownGuards(bool out) {
  int removed = 0;
  for (const SpdEntry& entry : spd_) {
    const bool guards = entry.dir == 1 && entry.mark == options_.guard_mark &&
                        entry.mark_mask == options_.guard_mark;
    const bool proves = entry.dir == 0 && entry.mark != 0 && !entry.bare && !entry.block &&
                        entry.mark_mask == options_.tag_mask && entry.priority == kProofPriority;
    if (!(out ? guards : proves) || entry.if_id != 0 || guards_.Owns(entry)) continue;
    Guard guard;  // the kernel finds it by direction, selector and mark
    guard.out = out;
    guard.priority = entry.priority;
    guard.mark = entry.mark;
    guard.unset = entry.mark_mask & ~entry.mark;
    guard.selector = entry.selector;
    if (Result<void> gone = kernel_.DeleteGuard(guard); !gone) {
      observer_.OnWarning("an SPD entry stays behind: " + gone.error().ToString());
      continue;
    }
    ++removed;
  }
  return removed;
}

// Sockets that were latched, or were about to be, and whose latch is not known: nobody watches over
// them.
int Engine::CutOffUnknown(const std::vector<LiveSocket>& live) {
  int cut = 0;
  for (const LiveSocket& socket : live) {
    if ((socket.mark & options_.guard_mark) == 0) continue;
    if (database_.FindByCookie(socket.cookie) != nullptr) continue;
    const Flow flow{Direction::kBoth, socket.protocol, socket.local, socket.remote};
    // What its listener has queued is refused at accept.
    if (socket.inode == 0 && socket.tcp_state != kTcpListen && ListenerOf(flow) != nullptr) {
      continue;
    }
    const SocketHint hint{socket.cookie, socket.inode, 0, -1};
    const std::optional<int> fd = kernel_.Borrow(hint);
    if (fd) {
      if (Result<SocketFacts> facts = kernel_.Inspect(*fd); facts) {
        Block(kernel_, *fd, *facts, socket.local.address.family);
      }
    }
    const Result<void> aborted = kernel_.Abort(hint, fd.value_or(-1), flow);
    if (fd) kernel_.GiveBack(*fd);
    if (!aborted && aborted.error().reason != Reason::kClosed) {
      observer_.OnWarning("a socket without a record: " + aborted.error().ToString());
    }
    ++cut;
  }
  return cut;
}

void Engine::Adopt(Entry entry, const std::vector<LiveSocket>& live,
                   const std::unordered_set<uint64_t>& held, bool suspect) {
  if (database_.FindByCookie(entry.hint.cookie) != nullptr) return;  // it has a later one
  const auto socket = std::ranges::find(live, entry.hint.cookie, &LiveSocket::cookie);
  // What SAs it has, and whether one was made for it alone, only the SAs tell: the very one that it
  // was made with, or after a rekey one of the same reqid.
  entry.own_sa = false;
  for (const KnownSa* known : sas_.Carrying(entry.latch.flow, /*inbound=*/false)) {
    if (known->sa.reqid != entry.latch.reqid) continue;
    const bool own = known->sa.selector.OfOneFlow();
    if (known->sa.key.spi == entry.latch.spi_out) {
      entry.own_sa = own;
      break;
    }
    entry.own_sa = entry.own_sa || (own && entry.latch.pin == Pin::kSpi);
  }
  const bool holds =
      entry.latch.state == State::kListener && entry.latch.flow.protocol == kProtocolUdp;
  if (socket == live.end() && !held.contains(entry.hint.inode)) {  // closed meanwhile
    if (holds) kernel_.ForgetDatagrams(entry.hint.cookie);
    return ReleaseKeys(entry);
  }
  const bool was_broken = entry.latch.state == State::kBroken;
  entry.seen = socket != live.end();
  entry.was_held = entry.latch.flow.protocol == kProtocolUdp;
  entry.silenced = false;
  std::vector<Guard> wanted = std::exchange(entry.guards, {});
  bool open = false;  // to fragments in clear
  entry.sa_guards.clear();
  if (holds) {
    AdoptHeld(entry, suspect);
  } else if (entry.latch.state == State::kListener && entry.seen) {
    entry.suspect_children = socket->queued;
    for (const Guard& guard : wanted) {
      if (Result<void> done = guards_.Hold(guard); done) {
        entry.guards.push_back(guard);
      } else {
        observer_.OnWarning("a listener's guard is missing: " + done.error().ToString());
      }
    }
  } else if (entry.latch.state == State::kEstablished && !was_broken && !entry.latch.clear) {
    const Guard guard = FlowGuard(entry.latch, options_.guard_mark, entry.own_sa);
    if (guards_.Hold(guard)) {
      entry.guards.push_back(guard);
    } else {
      open = guard.mode == Mode::kTunnel;
    }
  }
  if (was_broken) entry.broken_since = kernel_.NowMs();
  if (was_broken && entry.latch.reason == Reason::kAdmin) entry.admin_broken = true;
  Entry* stored = database_.Restore(std::move(entry));
  if (stored == nullptr) {
    observer_.OnWarning("a latch of the journal could not be taken over");
    return;
  }
  if (stored->held) {
    RestoreBrokenPeers(*stored);
    RefreshHeld(*stored);
  } else if (stored->latch.state == State::kListener) {
    RefreshListener(*stored);
  } else if (was_broken) {
    Silence(*stored, /*first=*/true);
  } else if (open) {
    Break(*stored, Reason::kSuspectGap);
  } else if (stored->latch.state == State::kLarval) {
    Break(*stored, Reason::kSuspectGap);  // whoever negotiated for it is gone
  }
}

}  // namespace latchkey::broker
