// A broker for tests of the shim: answers what it is told to, on a thread of its own.
//
// It decides nothing and touches no kernel policy; its page is a memory file that the test writes.
#ifndef SHIM_TESTING_FAKE_BROKER_H_
#define SHIM_TESTING_FAKE_BROKER_H_

#include <array>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "shim/wire/codec.h"
#include "shim/wire/page.h"

namespace latchkey::testing {

struct Answer {
  wire::Verdict verdict = wire::Verdict::kLatched;
  int error = 0;
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
  // What kOpen is answered with.
  void SetOpen(wire::Reason reason, const std::string& text);
  // Puts every socket that comes with kConnect into the page as troubled.
  void SetTrouble(wire::Trouble trouble);
  // Refuses every token from now on: the session is gone.
  void ForgetSession();

  // Hands out another page from now on, as a broker that was restarted does.
  void RenewPage();

  // Goes away, connections and socket and all; comes back.
  void Stop();
  void Start();

  int Count(wire::Type type) const;

 private:
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
  void Trouble(int socket);

  std::string folder_;
  std::string path_;
  int page_fd_ = -1;
  wire::Page* page_ = nullptr;
  int listener_ = -1;
  int stop_[2] = {-1, -1};
  std::thread thread_;

  mutable std::mutex mutex_;
  std::map<wire::Type, Plan> plans_;
  std::map<wire::Type, int> counts_;
  wire::Reason open_reason_ = wire::Reason::kNone;
  std::string open_text_;
  wire::Trouble trouble_ = wire::Trouble::kFree;
  bool session_known_ = true;
};

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_FAKE_BROKER_H_
