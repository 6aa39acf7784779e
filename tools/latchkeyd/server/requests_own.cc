// Requests of a program's own (LATCHKEY_REQUEST): taken here, decided when the socket is used.
#include <cerrno>
#include <string>
#include <utility>

#include "policy/request.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

constexpr size_t kMostWishes = 65'536;  // of one user
constexpr int64_t kPruneMs = 60'000;

}  // namespace

Client Server::ClientOf(Session& session, const wire::Received& request) const {
  Client client;
  client.session = session.record.id;
  client.policy = session.policy;
  client.pid = request.pid;
  client.program = session.record.program;
  client.requester.uid = request.uid;
  client.requester.grants = sessions_.GrantsOf(session, request.uid);
  client.requester.own = sessions_.OwnGrantsOf(session, request.uid);
  return client;
}

Answer Server::TakeWish(const Client& client, int fd, const std::string& text, int& error) {
  Flow flow{Direction::kOut, kProtocolTcp, {}, {}};
  const auto refuse = [&](Reason reason, const std::string& detail, int number = 0) {
    OnRefusal(client, flow, reason, detail);
    error = number;
    return Answer{wire::Verdict::kRefused, reason, 0, 0};
  };
  const Result<SocketFacts> known = kernel_.Inspect(fd);
  if (known && wishes_.Find(known->cookie) != nullptr) {
    return refuse(Reason::kBadRequest, "the socket has a request", EALREADY);
  }
  if (wishes_.CountOf(client.requester.uid) >= kMostWishes) {
    return refuse(Reason::kLimit, "too many requests of one user");
  }
  auto parsed = policy::ParseRequest(text, client.policy);
  if (!parsed) {
    std::string all;
    for (const policy::ParseError& each : parsed.error()) {
      all += (all.empty() ? "" : "; ") + each.ToString();
    }
    return refuse(Reason::kBadRequest, all);
  }
  const Result<SocketFacts> facts = engine_->Reserve(fd);
  if (!facts) {
    const bool used = known && (known->stream_tcp || known->datagram_udp) && known->own_netns &&
                      facts.error().reason == Reason::kBadRequest;
    return refuse(facts.error().reason, facts.error().ToString(), used ? EISCONN : 0);
  }
  const WishRecord record{facts->cookie, facts->inode, client.session, client.requester.uid, text};
  // Written down before it is answered: a broker that comes after us must know.
  journal_.Add(record);
  wishes_.Put(record, std::make_shared<const policy::Policy>(std::move(*parsed)));
  MarkPages();
  return Answer{wire::Verdict::kBypass, Reason::kNone, 0, 0};
}

bool Server::HoldToRequest(Client& client, int fd, wire::Type type) {
  if (!wishes_.empty()) {
    const Result<SocketFacts> facts = kernel_.Inspect(fd);
    auto wish = facts ? wishes_.Find(facts->cookie) : nullptr;
    // Whoever uses the socket is held to the policy of his own session.
    if (wish != nullptr && wish->floor != client.policy) {
      wish = policy::HeldTo(wish->request, client.policy);
    }
    if (wish != nullptr) {
      client.policy = std::move(wish);
      return true;
    }
  }
  const bool begins = type == wire::Type::kConnect || type == wire::Type::kListen ||
                      type == wire::Type::kHold || type == wire::Type::kPeer;
  if (!wishes_lost_ || !begins || !engine_->IsMarkedAlone(fd)) return true;
  OnRefusal(client, Flow{Direction::kOut, kProtocolTcp, {}, {}}, Reason::kSuspectGap,
            "the socket may have had a request that the journal lost");
  return false;
}

bool Server::HandleWish(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::Wish>();
  if (asked.flags != 0 || asked.text[wire::kWishSize - 1] != '\0') return false;
  Session* session = sessions_.Find(connection.session);
  if (session == nullptr) return false;
  const int fd = request.descriptors[0];
  int error = 0;
  const Answer answer = TakeWish(ClientOf(*session, request), fd, asked.text, error);
  wire::Decision reply = DecisionOf(answer, asked.header.serial);
  if (error != 0) reply.error = error;
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

void Server::RestoreWishes(const JournalState& old) {
  wishes_lost_ = old.garbled > 0;
  const auto nothing = std::make_shared<const policy::Policy>();
  for (const auto& [cookie, record] : old.wishes) {
    const Session* session = sessions_.Find(record.session);
    wishes_.Put(record,
                policy::HeldTo(record.text, session != nullptr ? session->policy : nothing));
  }
  MarkPages();
}

// A socket can be handed from any session to any other.
void Server::MarkPages() {
  if (wishes_.empty()) return;
  for (auto& [id, session] : sessions_.all()) session.page.page().flags |= wire::kPageRequests;
}

void Server::PruneWishes() {
  const int64_t now = kernel_.NowMs();
  if ((wishes_.empty() && told_.empty()) || now - pruned_at_ < kPruneMs) return;
  pruned_at_ = now;
  const Result<std::unordered_set<uint64_t>> held = kernel_.HeldSocketInodes();
  if (!held) return OnWarning("cannot look for open sockets: " + held.error().ToString());
  for (const uint64_t cookie : wishes_.Prune(*held)) journal_.EndWish(cookie);
  PruneTold(*held);
}

}  // namespace latchkey::broker
