// A charon for tests: speaks VICI on a socket in the test's folder, has the SAs and configurations
// that the test gives it, and starts no key exchange.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_FAKE_CHARON_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_FAKE_CHARON_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/keymgr/vici/connection.h"
#include "tools/latchkeyd/keymgr/vici/message.h"
#include "tools/unique_fd.h"

namespace latchkey::broker::vici {

// A CHILD_SA and an IKE_SA in the words of VICI.
struct FakeChild {
  std::string name = "db";
  uint32_t id = 1;
  uint32_t reqid = 70000;
  uint32_t spi_in = 0x100;
  uint32_t spi_out = 0x200;
  std::string state = "INSTALLED";
  std::string mode = "TRANSPORT";
  std::string protocol = "ESP";
};

struct FakeIke {
  std::string name = "to-alice";
  uint32_t id = 1;
  std::string state = "ESTABLISHED";
  std::string local = "10.9.0.2";
  std::string remote = "10.9.0.1";
  std::string local_id = "me.example";
  std::string remote_id = "alice.example";
  std::string eap_id;
  uint16_t port = 500;
  bool nat_remote = false;
  std::string spis = "00000000000000aa";
  std::vector<FakeChild> children = {FakeChild{}};
};

struct FakeConn {
  std::string name = "to-alice";
  std::vector<std::string> local_addresses = {"10.9.0.2"};
  std::vector<std::string> remote_addresses = {"10.9.0.1"};
  std::string remote_class = "public key";
  std::string remote_id = "alice.example";
  std::string local_id = "me.example";
  std::string local_class = "public key";
  std::vector<std::string> remote_cacerts = {};
  std::vector<std::pair<std::string, std::string>> more = {};
  std::string child = "db";
  std::string mode = "TRANSPORT";
  std::vector<std::string> local_ts = {"dynamic"};
  std::vector<std::string> remote_ts = {"dynamic[tcp/5432]"};
};

// A certificate that charon shows for `subject`.
struct FakeCert {
  std::string subject;
  std::string type;
  std::string flag;
  bool has_key = false;
  std::string data;
};

// What is in a section named like the configuration, and whole messages.
Section IkeSection(const FakeIke& ike, bool children = true);
Section UpDownMessage(const FakeIke& ike, bool up, bool children);
Section ConnMessage(const FakeConn& conn);
Section ChildRekeyMessage(const FakeIke& ike, const FakeChild& from, const FakeChild& to);
Section IkeRekeyMessage(const FakeIke& from, const FakeIke& to);
Section IkeUpdateMessage(const FakeIke& ike, const std::string& local, const std::string& remote);
Section LogMessage(uint32_t ike, const std::string& text);

class FakeCharon {
 public:
  // One `initiate` that is under way.
  struct Initiate {
    std::shared_ptr<Connection> connection;
    Section request;
  };

  FakeCharon();
  ~FakeCharon();
  FakeCharon(const FakeCharon&) = delete;
  FakeCharon& operator=(const FakeCharon&) = delete;

  const std::string& path() const { return path_; }
  void Start();
  // `leave`: the socket's file stays, as after a crash.
  void Stop(bool leave = false);

  // Takes and answers what has come.
  void Serve();
  // Sends an event to whoever registered for it.
  void Event(const std::string& name, const Section& message);
  void Log(uint32_t ike, const std::string& text) { Event("log", LogMessage(ike, text)); }
  // Sends octets as they are on every connection that registered for events.
  void Raw(const std::string& octets);

  // The answers of an `initiate`.
  void ControlLog(size_t which, const std::string& text, uint32_t ike = 0);
  void Answer(size_t which, const std::string& errmsg = "");

  // How often a command was asked, since the beginning.
  size_t Asked(const std::string& command) const;

  std::vector<FakeIke> sas;
  std::vector<FakeConn> conns = {FakeConn{}};
  std::vector<FakeCert> certs;
  std::vector<Initiate> initiates;
  std::set<std::string> unknown_events;  // answered EVENT_UNKNOWN
  bool holds_lists = false;              // list-sas: no answer until ReleaseLists()
  bool mute = false;                     // answers nothing
  std::string refuses_conns;             // why load-conn, unload-conn and terminate fail
  std::vector<Packet> orders;            // load-conn, unload-conn and terminate, as they came
  std::vector<std::string> behind;       // commands on a connection that hears of changes
  void ReleaseLists();

 private:
  struct Client {
    std::shared_ptr<Connection> connection;
    std::set<std::string> events;
  };
  void Take(Client& client, const Packet& packet);
  void ListSas(Connection& connection);
  void Load(const Section& message);

  std::string path_;
  UniqueFd listener_;
  std::vector<Client> clients_;
  std::vector<std::shared_ptr<Connection>> held_;
  std::vector<std::string> asked_;
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_FAKE_CHARON_H_
