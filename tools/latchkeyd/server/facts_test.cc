// What control programs ask beyond latches: the SPD, the SAD, refusals and breaks; and sessions
// with signatures.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;

TEST_CASE("Root sees the SPD with its owners and the SAD with its peers, others nothing") {
  Rig rig;
  Peer session = rig.Attached();
  const uint64_t latch = rig.Latch(session, rig.kernel.NewSocket());
  rig.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  Peer control = rig.Connect();
  int owners[3] = {0, 0, 0};
  uint64_t place = 0;
  while (place < 100) {
    const auto record = rig.Ask<wire::SpdRecord>(control, Rig::Query(Type::kSpd, place));
    REQUIRE(record);
    if (record->more == 0) break;
    ++place;
    ++owners[static_cast<int>(record->owner)];
    if (record->owner == wire::Owner::kLatch) CHECK(record->latch == latch);
  }
  uint64_t sas = 0;
  while (sas < 100) {
    const auto record = rig.Ask<wire::SaRecord>(control, Rig::Query(Type::kSa, sas));
    REQUIRE(record);
    if (record->more == 0) break;
    ++sas;
    CHECK(record->known == 1);
    CHECK(std::string(record->peer_id) == "alice");
  }
  const bool root = getuid() == 0;
  CHECK(place == (root ? 3 : 0));
  CHECK(owners[1] == (root ? 2 : 0));
  CHECK(sas == (root ? 2 : 0));
}

TEST_CASE("Refusals and breaks are told, the newest first") {
  Rig rig;
  Peer control = rig.Connect();
  CHECK(rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, 0))->id == 0);
  Peer session = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t latch = rig.Latch(session, socket);
  const auto refused = rig.Ask<wire::Decision>(
      session, Rig::SocketRequest(Type::kConnect, "10.9.0.77"), {rig.kernel.NewSocket()});
  REQUIRE(refused);
  CHECK(refused->reason == Reason::kNoSa);
  rig.keys.Name(9, "mallory");
  for (const Sa& sa : rig.kernel.AddPair(9, "10.9.0.2")) {
    rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  }
  const auto broke = rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, 0));
  REQUIRE(broke);
  CHECK(broke->latch == latch);
  CHECK(broke->reason == Reason::kConflictSa);
  CHECK(std::string(broke->detail) == "rule all");
  CHECK(std::string(broke->rule) == "app.toml:5: rule \"all\"");
  CHECK(std::string(broke->program) == "/usr/bin/app");
  const auto before = rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, broke->id));
  REQUIRE(before);
  CHECK(before->latch == 0);
  CHECK(before->reason == Reason::kNoSa);
  CHECK(std::string(before->rule) == "app.toml:5: rule \"all\"");
  CHECK(FromWire(before->remote).port == 443);
  CHECK(before->pid == static_cast<uint32_t>(getpid()));
  CHECK(rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, before->id))->id == 0);
}

TEST_CASE("A history keeps the last, and shows users their own") {
  History history;
  for (uint32_t i = 0; i < History::kKept + 10; ++i) {
    Incident incident;
    incident.uid = i % 2 == 0 ? 1000 : 1001;
    history.Add(incident);
  }
  CHECK(history.Before(0, 0)->id == History::kKept + 10);
  CHECK(history.Before(0, 1000)->id == History::kKept + 9);
  CHECK(history.Before(0, 1002) == nullptr);
  size_t seen = 0;
  for (const Incident* at = history.Before(0, 0); at != nullptr; at = history.Before(at->id, 0)) {
    ++seen;
  }
  CHECK(seen == History::kKept);
}

TEST_CASE("A policy in error is an incident too") {
  Rig rig;
  Peer peer = rig.Connect();
  CHECK(rig.Open(peer, "latchkey = 2\n")->reason == Reason::kBadPolicy);
  Peer control = rig.Connect();
  const auto told = rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, 0));
  REQUIRE(told);
  CHECK(told->reason == Reason::kBadPolicy);
  CHECK(std::string(told->detail).find("app.toml:1:12") != std::string::npos);
}

TEST_CASE(
    "A signature comes as a second file, is verified, and one that is wrong is told by name") {
  Rig rig;
  const UniqueFd policy = FileWith(kProtectAll);
  const UniqueFd garbage = FileWith("garbage");
  const UniqueFd empty = FileWith("");
  const auto open = [&](uint32_t flags, const std::vector<int>& files) {
    Peer peer = rig.Connect();
    return rig.Ask<wire::Opened>(peer, Rig::OpenRequest(flags), files);
  };
  const auto wrong = open(wire::kOpenSigned, {policy.get(), garbage.get()});
  REQUIRE(wrong);
  CHECK(wrong->reason == Reason::kBadSignature);
  CHECK(std::string(wrong->text).starts_with("app.toml.minisig: line 1: "));
  const auto none = open(wire::kOpenSigned, {policy.get(), empty.get()});
  REQUIRE(none);
  CHECK(none->reason == Reason::kBadSignature);
  CHECK(std::string(none->text) == "app.toml.minisig: it is empty");
  // The flag and the files must agree.
  CHECK_FALSE(open(wire::kOpenSigned, {policy.get()}));
  CHECK_FALSE(open(0, {policy.get(), garbage.get()}));
  CHECK_FALSE(open(wire::kOpenSigned | wire::kOpenNoPolicy, {garbage.get()}));
  CHECK(rig.sessions->all().empty());
}

TEST_CASE("Pages are compiled anew when the system's policy changes") {
  Rig rig;
  Peer session = rig.Attached("latchkey = 1\napplication = \"app\"\n");
  const auto page = [&]() -> wire::Page& {
    return rig.sessions->all().begin()->second.page.page();
  };
  CHECK((page().flags & wire::kPageNoRules) != 0);
  CHECK(page().otherwise == wire::Settle::kBypass);
  const uint32_t before = page().generation;
  SpdEntry entry;
  entry.dir = 1;
  entry.block = true;
  rig.kernel.spd.push_back(entry);
  rig.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(page().generation > before);
  CHECK(page().generation % 2 == 0);
  CHECK((page().flags & wire::kPageNoRules) == 0);
  bool asks = false;
  for (uint32_t i = 0; i < page().rule_count; ++i) {
    asks = asks || page().rules[i].settle == wire::Settle::kAsk;
  }
  CHECK(asks);
  const auto refused = rig.Ask<wire::Decision>(
      session, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), {rig.kernel.NewSocket()});
  REQUIRE(refused);
  CHECK(refused->reason == Reason::kPolicyDiscard);
}

}  // namespace
}  // namespace latchkey::broker
