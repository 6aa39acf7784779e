// A broker for tests of the shim: answers what it is told to, on a thread of its own.
//
// It decides nothing and touches no kernel policy; its page is a memory file that the test writes.
#ifndef SHIM_TESTING_FAKE_BROKER_H_
#define SHIM_TESTING_FAKE_BROKER_H_

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "shim/testing/harness.h"
#include "shim/testing/hold.h"
#include "shim/wire/codec.h"
#include "shim/wire/page.h"

namespace latchkey::testing {

struct Answer {
  wire::Verdict verdict = wire::Verdict::kLatched;  // kWait: none ever comes
  int error = 0;
  int waits = 0;     // that many kWait come before it, the first at once
  int wait_ms = 20;  // from one to the next, and from the last to the answer
  wire::Reason reason = wire::Reason::kNone;
};

class FakeBroker {
 public:
  // Serves at once, on a socket in a new folder under /tmp.
  FakeBroker();
  ~FakeBroker();
  FakeBroker(const FakeBroker&) = delete;
  FakeBroker& operator=(const FakeBroker&) = delete;

  const std::string& path() const { return path_; }
  // The one session's token, in hexadecimal.
  std::string token() const;
  wire::Page& page() { return *page_; }

  // What requests of `type` are answered with; the first `times` ones only, when it is not 0.
  void Set(wire::Type type, Answer answer, int times = 0);
  // What kConnect to `port` is answered with, whatever Set() says.
  void SetPort(uint16_t port, Answer answer);
  // What kOpen is answered with.
  void SetOpen(wire::Reason reason, const std::string& text);
  // What kInquire and kBinding are answered with; nothing so far (id 0, ENODATA).
  void SetLatch(const wire::LatchRecord& record);
  void SetBinding(int error, const std::string& octets);
  // The last kWish's text.
  std::string wish() const;
  // Puts every socket that comes with kConnect into the page as troubled.
  void SetTrouble(wire::Trouble trouble);
  // Holds from now on the sockets that kHold or kPeer are about, where the answer is kLatched; what
  // is wanting to send to `port` of loopback a kPeer about that then brings.
  void SetHold(uint16_t port, Want want = Want::kEntry);
  // kLatches is done as a broker does it, where the answer is kBypass. Told of the socket: what
  // bears the tag 0x10000 and is from 127.0.0.1 is of latch 7, which is established; with that
  // address are 8, which is broken, and 9, another socket's. `connected`: 7 is its connection's.
  void SetTold(bool connected);
  // Refuses every token from now on: the session is gone.
  void ForgetSession();

  // Hands out another page from now on, as a broker that was restarted does.
  void RenewPage();

  // Goes away, connections and socket and all; comes back.
  void Stop();
  void Start();

  // Ends the waiting of all that wait with this answer.
  void Decide(Answer answer);
  // Fails every kLarval so far: the page first, then the socket is aborted.
  void Refuse(wire::Reason reason);

  int Count(wire::Type type) const;
  // How many connections there are; returns when there is none, or after some seconds.
  int connections() const { return connections_.load(); }
  void AwaitNobody() const;
  // The flags of the last request of this type, and its remote.
  uint32_t flags(wire::Type type) const;
  wire::Endpoint remote(wire::Type type) const;
  // How many wait; how many stopped waiting because their connections ended.
  int waiting() const;
  int withdrawn() const;
  // Returns when that many wait, or after some seconds.
  void AwaitWaiting(int count) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    int client = -1;
    int socket = -1;
    uint32_t serial = 0;
    Answer answer;
    Clock::time_point due;
  };

  struct Plan {
    Answer always;
    Answer first;
    int times = 0;
  };

  void MakePage();
  void Serve();
  // False when the connection has ended.
  bool ServeOne(int client);
  void Reply(int client, const wire::Received& request);
  // Sends the decision; keeps `socket`, which is then the fake's, for a kLarval.
  void Conclude(int client, uint32_t serial, Answer answer, int socket);
  // Goes on with what waits; returns the time until there is more to do, for poll().
  int Tick();
  void Withdraw(int client);
  void Hold(int socket, const wire::Endpoint& remote) const;
  void TellLatches(int socket, uint32_t flags) const;
  void Trouble(int socket, wire::Trouble trouble, wire::Reason reason);

  std::string folder_;
  std::string path_;
  int page_fd_ = -1;
  wire::Page* page_ = nullptr;
  int listener_ = -1;
  int stop_[2] = {-1, -1};
  std::atomic<int> connections_{0};
  std::thread thread_;

  mutable std::mutex mutex_;
  std::map<wire::Type, Plan> plans_;
  std::map<wire::Type, int> counts_;
  std::map<uint16_t, Answer> ports_;
  std::map<wire::Type, wire::SocketRequest> last_;
  bool holds_ = false;
  uint16_t hold_port_ = 0;
  Want want_ = Want::kNothing;
  std::vector<Waiting> waiting_;
  std::vector<int> larval_;
  int withdrawn_ = 0;
  bool connected_ = false;
  wire::Reason open_reason_ = wire::Reason::kNone;
  std::string open_text_;
  wire::Trouble trouble_ = wire::Trouble::kFree;
  bool session_known_ = true;
  wire::LatchRecord latch_{};
  wire::Bound bound_{.header = {}, .error = ENODATA, .size = 0, .octets = {}};
  std::string wish_;
};

// The environment of a probe in the session of `broker`.
inline std::map<std::string, std::string> In(const FakeBroker& broker) {
  return {{"LATCHKEY_SOCKET", broker.path()}, {"LATCHKEY_TOKEN", broker.token()}};
}

// Runs a probe there to its end, with `server` to talk to; returns its output.
inline std::string Run(const std::string& name, const FakeBroker& broker, const Server& server) {
  return Probe(name, server.port(), In(broker)).Finish();
}

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_FAKE_BROKER_H_
