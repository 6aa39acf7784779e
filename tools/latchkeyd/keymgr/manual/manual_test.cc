#include "tools/latchkeyd/keymgr/manual/manual.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

namespace latchkey::broker {
namespace {

constexpr char kAlice[] = "[[sa]]\nreqid = 7\nremote = [\"10.9.0.1\"]\nid = \"alice\"\n";
constexpr char kBob[] = "[[sa]]\nreqid = 7\nremote = [\"10.9.0.3\"]\nid = \"bob\"\n";
constexpr char kSpi[] = "[[sa]]\nspi = \"0x101\"\ndst = \"10.9.0.2\"\nid = \"carol\"\n";

class Pad {
 public:
  Pad() {
    const char* directory = std::getenv("TEST_TMPDIR");
    path_ = std::string(directory != nullptr ? directory : "/tmp") + "/pad.toml";
    unlink(path_.c_str());
  }
  ~Pad() { unlink(path_.c_str()); }
  void Write(const std::string& text, mode_t mode = 0644) {
    const std::string fresh = path_ + ".new";  // another inode each time
    std::ofstream(fresh) << text;
    REQUIRE(chmod(fresh.c_str(), mode) == 0);
    REQUIRE(rename(fresh.c_str(), path_.c_str()) == 0);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Sa MakeSa(const char* source, const char* destination, uint32_t reqid, uint32_t spi) {
  Sa sa;
  sa.source = *Address::Parse(source);
  sa.key = SaKey{*Address::Parse(destination), spi, SaProtocol::kEsp};
  sa.reqid = reqid;
  return sa;
}

std::string Who(ManualKeyManager& keys, const Sa& sa, bool inbound) {
  const Identified who = keys.Identify(sa, inbound);
  return who.known() ? who.verified.identity.peer_id : "nobody";
}

struct Fixture {
  Pad pad;
  std::vector<std::string> warnings;
  ManualKeyManager keys{pad.path(), [this](const std::string& text) { warnings.push_back(text); },
                        getuid()};
  const Sa in = MakeSa("10.9.0.1", "10.9.0.2", 7, 0x200);
  const Sa out = MakeSa("10.9.0.2", "10.9.0.1", 7, 0x201);
};

TEST_CASE_METHOD(Fixture, "The peer is named by reqid in both directions") {
  pad.Write(kAlice);
  CHECK(Who(keys, in, true) == "alice");
  CHECK(Who(keys, out, false) == "alice");
  CHECK(keys.Identify(in, true).verified.identity.auth == "manual");
  CHECK(keys.Identify(in, true).verified.static_reqid);
  CHECK(Who(keys, in, false) == "nobody");  // the peer's address would be ours
  CHECK(Who(keys, MakeSa("10.9.0.1", "10.9.0.2", 8, 0x200), true) == "nobody");
  CHECK(keys.Acquire({}).error().reason == Reason::kNoSa);
  CHECK(warnings.empty());
}

TEST_CASE_METHOD(Fixture, "An SPI pins nothing but itself, nor does a reqid of two peers") {
  pad.Write(std::string(kAlice) + kBob + kSpi);
  CHECK(Who(keys, in, true) == "alice");
  CHECK_FALSE(keys.Identify(in, true).verified.static_reqid);
  const Sa by_spi = MakeSa("10.9.0.4", "10.9.0.2", 9, 0x101);
  CHECK(Who(keys, by_spi, true) == "carol");
  CHECK_FALSE(keys.Identify(by_spi, true).verified.static_reqid);
}

TEST_CASE_METHOD(Fixture, "A file that changes is read again, one that goes knows nobody") {
  CHECK(Who(keys, in, true) == "nobody");
  CHECK(warnings.empty());  // no file is no fault
  pad.Write(kAlice);
  CHECK(keys.Refresh());
  CHECK_FALSE(keys.Refresh());
  CHECK(Who(keys, in, true) == "alice");
  pad.Write("[[sa]]\nreqid = 7\nid = \"mallory\"\n");
  CHECK(Who(keys, in, true) == "mallory");
  REQUIRE(unlink(pad.path().c_str()) == 0);
  CHECK(Who(keys, in, true) == "nobody");
}

TEST_CASE_METHOD(Fixture, "An error anywhere in the file means that nobody is known") {
  pad.Write(kAlice);
  CHECK(Who(keys, in, true) == "alice");
  pad.Write(std::string(kAlice) + "[[sa]]\nreqid = \"x\"\n");
  CHECK(Who(keys, in, true) == "nobody");
  CHECK(Who(keys, out, false) == "nobody");
  CHECK(keys.error().find("pad.toml:") != std::string::npos);
  CHECK(warnings.size() == 1);
  pad.Write(kAlice);
  CHECK(Who(keys, in, true) == "alice");
  CHECK(keys.error().empty());
}

TEST_CASE_METHOD(Fixture, "A file that others may write, or own, knows nobody") {
  pad.Write(kAlice, 0664);
  CHECK(Who(keys, in, true) == "nobody");
  pad.Write(kAlice, 0646);
  CHECK(Who(keys, in, true) == "nobody");
  CHECK(warnings.size() == 1);  // the same fault is told once
  pad.Write(kAlice);
  CHECK(Who(keys, in, true) == "alice");
  // Only the mode changes: the time of change says so.
  REQUIRE(chmod(pad.path().c_str(), 0666) == 0);
  CHECK(Who(keys, in, true) == "nobody");
  REQUIRE(chmod(pad.path().c_str(), 0644) == 0);
  ManualKeyManager stranger(pad.path(), nullptr, getuid() + 1);
  CHECK(Who(stranger, in, true) == "nobody");
  CHECK(stranger.error().find("owned by") != std::string::npos);
}

}  // namespace
}  // namespace latchkey::broker
