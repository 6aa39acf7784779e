// Programs that want to be told under which latch a datagram came (LATCHKEY_LATCHES): the broker
// has the kernel give them the marks, and their session's page say what these mean.
#include <algorithm>
#include <string>
#include <utility>

#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

using wire::LatchSlotKind;

constexpr ptrdiff_t kMostTold = 4096;  // sockets of one user

LatchLine LineOf(const Entry& entry) {
  const bool stands = entry.latch.state == State::kEstablished;
  return {.kind = LatchSlotKind::kLatch,
          .flags = stands ? wire::kSlotEstablished : uint8_t{0},
          .cookie = entry.hint.cookie,
          .latch = entry.latch.id,
          .tag = 0,
          .remote = entry.latch.flow.remote,
          .inode = 0};
}

LatchLine LineOf(const DatagramAdmission& admission, uint64_t latch) {
  return {.kind = LatchSlotKind::kTag,
          .flags = 0,
          .cookie = admission.cookie,
          .latch = latch,
          .tag = admission.tag,
          .remote = admission.remote,
          .inode = 0};
}

LatchLine LineOf(uint64_t cookie, const Told& told, uint64_t latch) {
  return {.kind = LatchSlotKind::kSocket,
          .flags = told.flags,
          .cookie = cookie,
          .latch = latch,
          .tag = 0,
          .remote = {},
          .inode = told.inode};
}

}  // namespace

wire::LatchTable* Server::TableOf(uint64_t cookie) {
  const auto told = told_.find(cookie);
  if (told == told_.end()) return nullptr;
  Session* session = sessions_.Find(told->second.session);
  return session != nullptr ? &session->page.page().latches : nullptr;
}

void Server::Put(wire::LatchTable& table, const LatchLine& line) {
  if (!PutLine(table, line)) {
    OnWarning("latch " + std::to_string(line.latch) + " is not told to its program: too many");
  }
}

// Writes down all that there is to tell of a socket.
void Server::TellAll(uint64_t cookie) {
  wire::LatchTable* table = TableOf(cookie);
  const Entry* entry = engine_->database().FindByCookie(cookie);
  if (table == nullptr || entry == nullptr) return;
  if (!entry->held) return TellState(*entry, /*over=*/false);
  for (const auto& [remote, peer] : entry->held->peers) {
    const Entry* latch = engine_->database().Find(peer.latch);
    if (latch == nullptr) continue;
    Put(*table, LineOf(*latch));
    for (const DatagramAdmission& each : peer.admissions) Put(*table, LineOf(each, peer.latch));
  }
}

void Server::TellState(const Entry& entry, bool over) {
  const uint64_t cookie = entry.hint.cookie;
  wire::LatchTable* table = told_.empty() ? nullptr : TableOf(cookie);
  if (table == nullptr) return;
  if (entry.latch.state == State::kListener) return;
  const bool peer = entry.latch.listener != 0;
  if (over && !peer) {
    EraseLinesOf(*table, cookie, /*keep=*/true);  // a held one's, too
    Put(*table, LineOf(cookie, told_.at(cookie), 0));
  } else if (over) {
    EraseLine(*table, LineOf(entry));
  } else {
    Put(*table, LineOf(entry));
    if (!peer) Put(*table, LineOf(cookie, told_.at(cookie), entry.latch.id));
  }
}

void Server::OnAdmission(const DatagramAdmission& admission, uint64_t latch, bool adding) {
  wire::LatchTable* table = told_.empty() ? nullptr : TableOf(admission.cookie);
  if (table == nullptr) return;
  if (!adding) {
    EraseLine(*table, LineOf(admission, latch));
  } else if (latch != 0) {
    Put(*table, LineOf(admission, latch));
  }
}

Answer Server::TakeLatches(const Client& client, int fd, uint32_t flags) {
  const Flow flow{Direction::kIn, kProtocolUdp, {}, {}};
  const auto refuse = [&](Reason reason, const std::string& detail) {
    OnRefusal(client, flow, reason, detail);
    return Answer{wire::Verdict::kRefused, reason, 0, 0};
  };
  const Result<SocketFacts> facts = kernel_.Inspect(fd);
  if (!facts) return refuse(facts.error().reason, facts.error().ToString());
  if (!facts->own_netns) return refuse(Reason::kForeignNetns, "of another network namespace");
  if (!facts->datagram_udp) return refuse(Reason::kUnsupported, "not UDP");
  const uint64_t cookie = facts->cookie;
  const bool wanted = (flags & wire::kRequestLatches) != 0;
  const bool marks = (flags & wire::kRequestMarks) != 0;
  if (wanted && !told_.contains(cookie)) {
    const uint32_t uid = client.requester.uid;
    const auto same =
        std::ranges::count_if(told_, [uid](const auto& each) { return each.second.uid == uid; });
    if (same >= kMostTold) return refuse(Reason::kLimit, "too many sockets that are told latches");
  }
  if (Result<void> done = kernel_.TellMarks(fd, wanted || marks); !done) {
    return refuse(done.error().reason, done.error().ToString());
  }
  if (wire::LatchTable* table = TableOf(cookie)) EraseLinesOf(*table, cookie, /*keep=*/false);
  told_.erase(cookie);
  const Answer done{wire::Verdict::kBypass, Reason::kNone, 0, 0};
  if (!wanted) return done;
  const Told told{client.session, facts->inode, client.requester.uid,
                  marks ? wire::kSlotKeepMarks : uint8_t{0}, false};
  wire::Page& page = sessions_.Find(client.session)->page.page();
  if (!PutLine(page.latches, LineOf(cookie, told, 0))) {
    (void)kernel_.TellMarks(fd, marks);
    return refuse(Reason::kLimit, "too many latches of one session");
  }
  page.latches.tag_mask.store(engine_->tag_mask());
  told_[cookie] = told;
  TellAll(cookie);
  page.flags |= wire::kPageLatches;
  return done;
}

bool Server::HandleLatches(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if ((asked.flags & ~(wire::kRequestLatches | wire::kRequestMarks)) != 0) return false;
  Session* session = sessions_.Find(connection.session);
  if (session == nullptr) return false;
  const int fd = request.descriptors[0];
  const Answer answer = TakeLatches(ClientOf(*session, request), fd, asked.flags);
  const wire::Decision reply = DecisionOf(answer, asked.header.serial);
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

// What a broker before us wrote of latches is stale: theirs are others now.
void Server::RestoreTold() {
  for (auto& [id, session] : sessions_.all()) {
    wire::Page& page = session.page.page();
    if ((page.flags.load() & wire::kPageLatches) == 0) continue;
    for (const LatchLine& line : TakeSockets(page.latches)) {
      const Told told{id, line.inode, session.record.uid, line.flags, false};
      if (told_.try_emplace(line.cookie, told).second) {
        PutLine(page.latches, LineOf(line.cookie, told, 0));
      }
    }
    page.latches.tag_mask.store(engine_->tag_mask());
  }
}

// Two looks must have missed a socket: it may be on its way from one process to another.
void Server::PruneTold(const std::unordered_set<uint64_t>& held) {
  for (auto it = told_.begin(); it != told_.end();) {
    Told& told = it->second;
    const bool missing = !held.contains(told.inode);
    if (!missing || !std::exchange(told.missed, true)) {
      told.missed = missing;
      ++it;
      continue;
    }
    if (wire::LatchTable* table = TableOf(it->first)) {
      EraseLinesOf(*table, it->first, /*keep=*/false);
    }
    it = told_.erase(it);
  }
}

}  // namespace latchkey::broker
