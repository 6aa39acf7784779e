#include "tools/latchkeyd/server/offload.h"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace latchkey::broker {
namespace {

constexpr size_t kThreads = 256;
constexpr size_t kThreadsOfUser = 16;
constexpr std::chrono::seconds kIdle{10};  // then a thread that is not the only one ends

}  // namespace

struct Offload::State {
  struct User {
    std::deque<std::function<void()>> jobs;
    size_t running = 0;
  };

  // The next user with a job that may run now; null when there is none. Called with the lock held.
  std::pair<const uint32_t, User>* Next() {
    for (auto& user : users) {
      if (!user.second.jobs.empty() && user.second.running < kThreadsOfUser) return &user;
    }
    return nullptr;
  }

  std::mutex mutex;
  std::condition_variable wake;
  std::map<uint32_t, User> users;
  size_t threads = 0;
  size_t idle = 0;
  size_t woken = 0;  // idle threads that were told of a job and have not taken it yet
  bool over = false;
};

Offload::Offload() : state_(std::make_shared<State>()) {}

Offload::~Offload() {
  const std::lock_guard lock(state_->mutex);
  state_->over = true;
  state_->wake.notify_all();
}

void Offload::Work(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  for (;;) {
    auto* user = state->Next();
    if (user != nullptr) {
      const uint32_t uid = user->first;
      const std::function<void()> job = std::move(user->second.jobs.front());
      user->second.jobs.pop_front();
      ++user->second.running;
      lock.unlock();
      job();
      lock.lock();
      State::User& done = state->users[uid];
      if (--done.running == 0 && done.jobs.empty()) state->users.erase(uid);
      continue;
    }
    if (state->over) break;
    ++state->idle;
    const std::cv_status waited = state->wake.wait_for(lock, kIdle);
    --state->idle;
    if (state->woken > 0) --state->woken;
    const bool spare = state->threads > 1 && state->Next() == nullptr;
    if (waited == std::cv_status::timeout && spare) break;
  }
  --state->threads;
}

void Offload::Run(uint32_t uid, std::function<void()> job) {
  const std::lock_guard lock(state_->mutex);
  State::User& user = state_->users[uid];
  user.jobs.push_back(std::move(job));
  if (user.running + user.jobs.size() > kThreadsOfUser) return;  // one of his own will take it
  if (state_->idle > state_->woken) {
    ++state_->woken;
    state_->wake.notify_one();
    return;
  }
  if (state_->threads >= kThreads) return;
  try {
    std::thread(Work, state_).detach();
    ++state_->threads;
  } catch (const std::system_error&) {
    // No thread to be had: the next one that is free takes the job.
  }
}

void Offload::Close(uint32_t uid, int fd) {
  if (fd >= 0) Run(uid, [fd] { close(fd); });
}

size_t Offload::Pending(uint32_t uid) const {
  const std::lock_guard lock(state_->mutex);
  const auto it = state_->users.find(uid);
  return it == state_->users.end() ? 0 : it->second.running + it->second.jobs.size();
}

}  // namespace latchkey::broker
