// What the journal's tests share: records of every kind, and how two of them are compared.
#ifndef TOOLS_LATCHKEYD_SERVER_JOURNAL_FIXTURE_H_
#define TOOLS_LATCHKEYD_SERVER_JOURNAL_FIXTURE_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "tools/latchkeyd/server/journal.h"

namespace latchkey::broker {

struct Directory {
  Directory() {
    char name[] = "/tmp/journal_test.XXXXXX";
    path = mkdtemp(name);
  }
  ~Directory() {
    unlink(File().c_str());
    rmdir(path.c_str());
  }
  std::string File() const { return path + "/journal"; }
  std::string Text() const {
    std::ifstream file(File());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string path;
};

inline SessionRecord MakeSession(uint64_t id) {
  SessionRecord session;
  session.id = id;
  session.token = std::string(63, 'a') + "\xcf";  // hex, in truth
  session.uid = 1000;
  session.program = "/opt/caf\xe9/\xc3\xa9/app";  // not UTF-8 as a whole
  session.policy_name = "app \"one\"\n.toml";
  session.policy_text = "latchkey = 1\n\xf0\x9f\x94\x91 \\";
  session.signature = "untrusted comment: \xff\n";
  session.has_policy = true;
  session.by_launcher = true;
  session.unlatched = true;
  session.fence = wire::FenceState::kLacking;
  session.not_fenced = "no \"cgroups\"";
  return session;
}

inline Guard MakeGuard(uint16_t port) {
  Guard guard;
  guard.out = false;
  guard.action = Guard::Action::kEsp;
  guard.reqid = 7;
  guard.priority = 3;
  guard.mark = 0x80000000;
  guard.unset = 0x7fff0000;
  guard.selector.family = Family::kV6;
  guard.selector.source = *Prefix::Parse("fd00::/8");
  guard.selector.destination = *Prefix::Parse("fd00::1");
  guard.selector.protocol = 6;
  guard.selector.destination_port = port;
  guard.selector.destination_mask = 0xffff;
  return guard;
}

inline Entry MakeEntry(uint64_t id) {
  Entry entry;
  Latch& latch = entry.latch;
  latch.id = id;
  latch.state = State::kBroken;
  latch.reason = Reason::kConflictSa;
  latch.flow.direction = Direction::kIn;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 443};
  latch.flow.remote = {*Address::Parse("10.9.0.2"), 40'000};
  latch.identity = {"\xff b", "me", "manual"};
  latch.protection = {SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
  latch.pin = Pin::kSpi;
  latch.implicit = true;
  latch.clear = true;
  latch.suspends = true;
  latch.reqid = 42;
  latch.spi_in = 0xdeadbeef;
  latch.spi_out = 2;
  latch.program = "/bin/\x80";
  latch.pid = 99;
  latch.uid = 1000;
  latch.policy = "app";
  latch.rule = "rule 1";
  latch.since = 1'700'000'000;
  entry.session = 3;
  entry.hint = SocketHint{~uint64_t{0} - 1, 77, 99, 5};
  entry.v6_socket = true;
  entry.static_reqid = true;
  entry.refused = true;
  entry.created = 12'345;
  entry.requester = policy::Requester{1000, policy::Grants::All()};
  entry.guards = {MakeGuard(1), MakeGuard(2)};
  entry.guards[1].mode = Mode::kTunnel;
  entry.guards[1].ends = {*Address::Parse("fd00::7"), *Address::Parse("fd00::8")};
  latch.peering = {
      {*Address::Parse("10.9.0.7"), 4500}, {*Address::Parse("10.9.0.8"), 1}, true, false};
  return entry;
}

// An unconnected UDP socket, one peer of which the administrator broke.
inline Entry MakeHeld(uint64_t id) {
  Entry entry;
  Latch& latch = entry.latch;
  latch.id = id;
  latch.state = State::kListener;
  latch.flow = {Direction::kIn, kProtocolUdp, {*Address::Parse("0.0.0.0"), 53}, {}};
  entry.requester.uid = latch.uid;
  Latch broken = MakeEntry(id + 1).latch;
  broken.flow.protocol = kProtocolUdp;
  entry.broken_peers[broken.flow.remote] = broken;
  return entry;
}

inline void CheckSame(const SessionRecord& a, const SessionRecord& b) {
  CHECK(a.id == b.id);
  CHECK(a.token == b.token);
  CHECK(a.uid == b.uid);
  CHECK(a.program == b.program);
  CHECK(a.policy_name == b.policy_name);
  CHECK(a.policy_text == b.policy_text);
  CHECK(a.has_policy == b.has_policy);
  CHECK(a.signature == b.signature);
  CHECK(a.by_launcher == b.by_launcher);
  CHECK(a.unlatched == b.unlatched);
  CHECK(a.fence == b.fence);
  CHECK(a.not_fenced == b.not_fenced);
}

// Between whom a latch is, and by what.
inline void CheckSameTerms(const Latch& a, const Latch& b) {
  CHECK(a.id == b.id);
  CHECK(a.flow == b.flow);
  CHECK(a.identity == b.identity);
  CHECK(a.protection == b.protection);
  CHECK(a.pin == b.pin);
  CHECK(a.implicit == b.implicit);
  CHECK(a.peering == b.peering);
  CHECK(a.reqid == b.reqid);
  CHECK(a.spi_in == b.spi_in);
  CHECK(a.spi_out == b.spi_out);
  CHECK(a.rule == b.rule);
  CHECK(a.since == b.since);
}

inline void CheckSame(const Entry& a, const Entry& b) {
  CheckSameTerms(a.latch, b.latch);
  CHECK(a.latch.state == b.latch.state);
  CHECK(a.latch.reason == b.latch.reason);
  CHECK(a.latch.clear == b.latch.clear);
  CHECK(a.latch.suspends == b.latch.suspends);
  CHECK(a.latch.program == b.latch.program);
  CHECK(a.latch.pid == b.latch.pid);
  CHECK(a.latch.uid == b.latch.uid);
  CHECK(a.latch.policy == b.latch.policy);
  CHECK(a.session == b.session);
  CHECK(a.hint.cookie == b.hint.cookie);
  CHECK(a.hint.inode == b.hint.inode);
  CHECK(a.hint.pid == b.hint.pid);
  CHECK(a.hint.fd == b.hint.fd);
  CHECK(a.v6_socket == b.v6_socket);
  CHECK(a.static_reqid == b.static_reqid);
  CHECK(a.refused == b.refused);
  CHECK(a.created == b.created);
  CHECK(a.requester.uid == b.requester.uid);
  CHECK(a.requester.grants == b.requester.grants);
  CHECK(a.guards == b.guards);
  REQUIRE(a.broken_peers.size() == b.broken_peers.size());
  for (const auto& [remote, latch] : b.broken_peers) {
    REQUIRE(a.broken_peers.contains(remote));
    CheckSameTerms(a.broken_peers.at(remote), latch);
  }
}

inline Voucher MakeVoucher(uint32_t spi) {
  Voucher voucher;
  Sa& sa = voucher.sa;
  sa.key = {*Address::Parse("10.9.0.2"), spi, SaProtocol::kEsp};
  sa.source = *Address::Parse("10.9.0.1");
  sa.reqid = 65'600;
  sa.selector = MakeGuard(7).selector;
  sa.protection = {SaProtocol::kEsp, Mode::kTunnel, "aes-cbc", "hmac-sha2-256", 128, true, true};
  sa.mark = 4;
  sa.mark_mask = 12;
  sa.if_id = 3;
  sa.set_mark = 0x70000;
  sa.set_mask = 0x7fff0000;
  sa.offload = Offload::kCrypto;
  sa.added = 1'700'000'001;
  voucher.traffic = {MakeGuard(3).selector, Selector{}};
  voucher.identity = {"CN=\xff\"b\"", "a.lab", "pubkey"};
  return voucher;
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_JOURNAL_FIXTURE_H_
