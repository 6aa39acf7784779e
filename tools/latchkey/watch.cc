// `latchkey watch`: a line for every change of a latch, as it happens.

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "tools/latchkey/client.h"
#include "tools/latchkey/event_text.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

// Returns a descriptor that is readable once somebody wants us to end. What is ignored stays so:
// whoever started us meant it.
UniqueFd EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    if (sigaction(number, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, number);
  }
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // EPIPE says as much
  return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

// Writes a whole line at once. kExitYes with `over` set: nobody reads any more.
int PrintLine(const std::string& line, bool& over) {
  if (std::fwrite(line.data(), 1, line.size(), stdout) == line.size() && std::fflush(stdout) == 0) {
    return kExitYes;
  }
  over = true;
  if (errno == EPIPE) return kExitYes;
  return Report({kExitNo, std::string("standard output: ") + std::strerror(errno)});
}

class Watching {
 public:
  Watching(std::vector<Broker> brokers, bool json)
      : brokers_(std::move(brokers)), json_(json), several_(brokers_.size() > 1) {}

  // Until a signal, the reader's end, or that of the last broker.
  int Run() {
    const UniqueFd signals = EndSignals();
    while (!brokers_.empty()) {
      std::vector<pollfd> waiting;
      for (const Broker& broker : brokers_) waiting.push_back({broker.client.fd(), POLLIN, 0});
      waiting.push_back({signals.get(), POLLIN, 0});
      waiting.push_back({STDOUT_FILENO, 0, 0});  // POLLERR: a pipe nobody reads
      if (poll(waiting.data(), waiting.size(), -1) < 0) {
        if (errno == EINTR) continue;
        return Report({kExitNo, std::string("poll: ") + std::strerror(errno)});
      }
      // What came before the end is told.
      for (size_t i = brokers_.size(); i-- > 0;) {
        if (waiting[i].revents == 0) continue;
        bool over = false;
        const int exit = Drain(i, over);
        if (over) return exit;
      }
      if (waiting[waiting.size() - 2].revents != 0) return kExitYes;
      if ((waiting.back().revents & POLLERR) != 0) return kExitYes;
    }
    return kExitNoBroker;
  }

 private:
  // Prints what has come from one broker, and takes it out of the list when it has ended.
  int Drain(size_t index, bool& over) {
    Broker& broker = brokers_[index];
    for (;;) {
      const auto event = broker.client.NextEvent();
      if (!event) {
        Report({kExitNoBroker, broker.path + ": " + event.error() +
                                   ": it has ended, or this was too slow for it; what happened "
                                   "since is not shown"});
        brokers_.erase(brokers_.begin() + static_cast<std::ptrdiff_t>(index));
        return kExitNoBroker;
      }
      if (!*event) return kExitYes;
      const std::string line = json_ ? EventJson(**event, broker.path)
                                     : EventLine(**event, several_ ? broker.path : std::string());
      if (const int exit = PrintLine(line, over); over) return exit;
    }
  }

  std::vector<Broker> brokers_;
  const bool json_;
  const bool several_;
};

}  // namespace

int Watch(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;
  for (Broker& broker : brokers) {
    const auto answer = broker.client.Watch();
    if (!answer) return Report({kExitNoBroker, broker.path + ": " + answer.error()});
    if (*answer != wire::Reason::kNone) {
      const std::string word = wire::ReasonWord(*answer);
      return Report({kExitNo, broker.path + ": refused (" + word + ")" +
                                  (*answer == wire::Reason::kLimit ? ": too many watch" : "")});
    }
  }
  return Watching(std::move(brokers), options.json).Run();
}

}  // namespace latchkey::tool
