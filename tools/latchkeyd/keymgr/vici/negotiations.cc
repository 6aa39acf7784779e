#include "tools/latchkeyd/keymgr/vici/negotiations.h"

#include <algorithm>
#include <cerrno>

namespace latchkey::broker::vici {
namespace {

constexpr int64_t kBacklogMs = 20;

}  // namespace

uint64_t Negotiations::Join(const Choice& choice, std::optional<uint64_t> ticket, uint64_t fresh) {
  auto it =
      std::ranges::find_if(all_, [&](const auto& each) { return each.second.choice == choice; });
  if (it == all_.end()) {
    it = all_.emplace(next_tag_++, One{}).first;
    it->second.choice = choice;
  }
  std::map<uint64_t, int>& tickets = it->second.tickets;
  uint64_t mine = fresh;
  if (ticket) {
    mine = *ticket;
  } else if (!tickets.empty()) {
    mine = tickets.begin()->first;
  }
  ++tickets[mine];
  return mine;
}

bool Negotiations::Leave(uint64_t ticket) {
  for (auto it = all_.begin(); it != all_.end(); ++it) {
    One& one = it->second;
    const auto mine = one.tickets.find(ticket);
    if (mine == one.tickets.end()) continue;
    if (--mine->second == 0) one.tickets.erase(mine);
    if (one.tickets.empty() && one.phase == Phase::kQueued) {
      ended_.emplace_back(one.choice, false);
      all_.erase(it);
    }
    return true;
  }
  return false;
}

void Negotiations::Pump(int64_t now) {
  if (retry_at_ != 0 && now >= retry_at_) retry_at_ = 0;
  std::vector<uint64_t> overdue;
  size_t running = 0;
  size_t waited_for = 0;
  for (const auto& [tag, one] : all_) {
    if (one.phase != Phase::kRunning) continue;
    if (now >= one.deadline) {
      overdue.push_back(tag);
      continue;
    }
    ++running;
    if (!one.tickets.empty()) ++waited_for;
  }
  for (const uint64_t tag : overdue) {
    Finish(tag, {"negotiate", "charon does not answer", Reason::kAcquireTimeout});
  }
  std::vector<uint64_t> queued;
  for (const auto& [tag, one] : all_) {
    if (one.phase == Phase::kQueued) queued.push_back(tag);
  }
  for (const uint64_t tag : queued) {
    if (retry_at_ != 0 || running >= kMostRunning || waited_for >= kMostWaitedFor) return;
    One& one = all_.at(tag);
    Begin(tag, one, now);
    const auto still = all_.find(tag);
    if (still == all_.end() || still->second.phase != Phase::kRunning) continue;
    ++running;
    ++waited_for;
  }
}

std::optional<int64_t> Negotiations::Due() const {
  std::optional<int64_t> due;
  if (retry_at_ != 0) due = retry_at_;
  for (const auto& [tag, one] : all_) {
    if (one.phase == Phase::kRunning && (!due || one.deadline < *due)) due = one.deadline;
  }
  return due;
}

void Negotiations::Begin(uint64_t tag, One& one, int64_t now) {
  int error = 0;
  Result<Connection> opened = Connection::Open(path_, error);
  if (!opened && error == EAGAIN) {
    retry_at_ = now + kBacklogMs;
    return;
  }
  if (!opened) return Finish(tag, opened.error());
  one.connection = std::move(*opened);
  Packet request{PacketType::kRequest, "initiate", {}};
  request.message.Add("child", one.choice.child);
  request.message.Add("ike", one.choice.ike);
  request.message.Add("timeout", std::to_string(kInitiateMs));
  request.message.Add("loglevel", "1");
  Result<void> sent = one.connection.Send({PacketType::kRegister, "control-log", {}});
  if (sent) sent = one.connection.Send(request);
  if (!sent) return Finish(tag, sent.error());
  one.phase = Phase::kRunning;
  one.deadline = now + kInitiateMs + kSlackMs;
  watch_(one.connection.fd(), tag, one.connection.wants_write());
}

void Negotiations::Serve(uint64_t tag, bool readable, bool writable) {
  const auto it = all_.find(tag);
  if (it == all_.end() || !it->second.connection) return;
  One& one = it->second;
  std::optional<Error> end;
  if (writable) {
    if (Result<void> wrote = one.connection.OnWritable(); !wrote) end = wrote.error();
  }
  if (readable && !end) {
    Result<std::vector<Packet>> packets = one.connection.OnReadable();
    if (!packets) {
      end = packets.error();
    } else {
      for (const Packet& packet : *packets) {
        if (!end && one.phase == Phase::kRunning) Take(one, packet, end);
      }
    }
  }
  if (end) return Finish(tag, *end);
  if (one.phase == Phase::kRunning) {
    watch_(one.connection.fd(), tag, one.connection.wants_write());
  } else {
    one.connection = {};
  }
}

void Negotiations::Take(One& one, const Packet& packet, std::optional<Error>& end) {
  switch (packet.type) {
    case PacketType::kConfirm:
      return;
    case PacketType::kEvent: {
      const LogLine line = ReadLogLine(packet.message);
      if (line.ike_id != 0) one.ike_id = line.ike_id;
      one.outcome.Hear(line);
      return;
    }
    case PacketType::kResponse:
      if (packet.message.Value("success") == "yes") {
        one.phase = Phase::kMade;
        wants_list_ = true;
      } else {
        end = one.outcome.Judge(packet.message.Value("errmsg").value_or(""));
      }
      return;
    default:
      end = Error{"negotiate", "charon answers with what is no answer", Reason::kKmLost};
  }
}

void Negotiations::OnChildUp(const Choice& choice, uint32_t ike_id) {
  for (auto& [tag, one] : all_) {
    if (one.choice == choice && one.phase != Phase::kQueued) one.up_in.insert(ike_id);
  }
}

void Negotiations::OnListAsked() {
  for (auto& [tag, one] : all_) {
    if (one.phase == Phase::kMade) one.phase = Phase::kListing;
  }
}

void Negotiations::OnListed() {
  for (auto& [tag, one] : all_) {
    if (one.phase == Phase::kListing) one.phase = Phase::kListed;
  }
}

void Negotiations::Settle() {
  std::vector<uint64_t> done;
  for (const auto& [tag, one] : all_) {
    const bool made = one.phase == Phase::kMade || one.phase == Phase::kListing;
    if (one.phase == Phase::kListed || (made && one.up_in.contains(one.ike_id)))
      done.push_back(tag);
  }
  for (const uint64_t tag : done) Finish(tag, {"", "", Reason::kNone});
}

void Negotiations::Finish(uint64_t tag, const Error& why) {
  const auto it = all_.find(tag);
  for (const auto& [ticket, waiters] : it->second.tickets) finished_.push_back({ticket, why});
  ended_.emplace_back(it->second.choice, why.reason == Reason::kNone);
  all_.erase(it);
}

void Negotiations::Lose(const Error& why) {
  while (!all_.empty()) Finish(all_.begin()->first, why);
  retry_at_ = 0;
  wants_list_ = false;
}

}  // namespace latchkey::broker::vici
