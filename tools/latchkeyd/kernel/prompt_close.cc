#include "tools/latchkeyd/kernel/prompt_close.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

namespace latchkey::broker {
namespace {

constexpr long kPatienceNs = 20'000'000;

bool IsPrompt(int fd) {
  // The number alone: of another family it is something that the timer can end as well.
  int protocol = 0;
  linger lingering{};
  socklen_t size = sizeof(protocol);
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) return false;
  if (protocol == IPPROTO_UDP) return true;  // lingers for nobody
  size = sizeof(lingering);
  if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &lingering, &size) != 0) return false;
  // A time of nought is an abort at once.
  return protocol == IPPROTO_TCP && (lingering.l_onoff == 0 || lingering.l_linger == 0);
}

}  // namespace

PromptClose::PromptClose() {
  // Not ignored and not restarting: that is what ends a wait.
  struct sigaction action {};
  action.sa_handler = [](int) {};
  if (sigaction(SIGALRM, &action, nullptr) != 0) return;
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event._sigev_un._tid = gettid();
  timer_t timer{};
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) timer_ = timer;
}

PromptClose::~PromptClose() {
  if (timer_) timer_delete(*timer_);
}

bool PromptClose::Close(int fd) { return IsPrompt(fd) && CloseAnyway(fd); }

bool PromptClose::CloseAnyway(int fd) {
  // Again and again: the first may come in the moment before the wait.
  const itimerspec patience{{0, kPatienceNs}, {0, kPatienceNs}};
  if (!timer_ || timer_settime(*timer_, 0, &patience, nullptr) != 0) return false;
  close(fd);
  const itimerspec none{};
  timer_settime(*timer_, 0, &none, nullptr);
  return true;
}

}  // namespace latchkey::broker
