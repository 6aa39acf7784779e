#include "shim/testing/fake_broker.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/testing/fake_latches.h"

namespace latchkey::testing {
namespace {

using wire::Type;

constexpr int kBacklog = 64;

// A fake that cannot be set up has nothing to test with.
void Must(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

std::array<uint8_t, wire::kTokenSize> Token() {
  std::array<uint8_t, wire::kTokenSize> token;
  for (size_t i = 0; i < token.size(); ++i) token[i] = static_cast<uint8_t>(0xa0 + i);
  return token;
}

}  // namespace

FakeBroker::FakeBroker() {
  char folder[] = "/tmp/latchkey-fake.XXXXXX";
  Must(mkdtemp(folder) != nullptr, "mkdtemp");
  folder_ = folder;
  path_ = folder_ + "/broker.sock";
  MakePage();
  Start();
}

void FakeBroker::MakePage() {
  page_fd_ = memfd_create("page", MFD_CLOEXEC);
  Must(page_fd_ >= 0 && ftruncate(page_fd_, sizeof(wire::Page)) == 0, "memfd");
  void* mapped = mmap(nullptr, sizeof(wire::Page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd_, 0);
  Must(mapped != MAP_FAILED, "mmap");
  page_ = static_cast<wire::Page*>(mapped);
  page_->magic = wire::kPageMagic;
  page_->version = wire::kVersion;
  page_->guard_mark = 0x80000000;
}

void FakeBroker::RenewPage() {
  const std::lock_guard lock(mutex_);
  munmap(page_, sizeof(wire::Page));
  close(page_fd_);
  MakePage();
}

FakeBroker::~FakeBroker() {
  Stop();
  munmap(page_, sizeof(wire::Page));
  close(page_fd_);
  for (const int held : larval_) close(held);
  rmdir(folder_.c_str());
}

std::string FakeBroker::token() const {
  std::string text;
  for (const uint8_t octet : Token()) {
    text += "0123456789abcdef"[octet >> 4];
    text += "0123456789abcdef"[octet & 15];
  }
  return text;
}

void FakeBroker::Set(Type type, Answer answer, int times) {
  const std::lock_guard lock(mutex_);
  Plan& plan = plans_[type];
  (times == 0 ? plan.always : plan.first) = answer;
  plan.times = times;
}

void FakeBroker::SetPort(uint16_t port, Answer answer) {
  const std::lock_guard lock(mutex_);
  ports_[port] = answer;
}

void FakeBroker::AwaitNobody() const {
  for (int i = 0; i < 1000 && connections() != 0; ++i) usleep(10'000);
}

void FakeBroker::SetOpen(wire::Reason reason, const std::string& text) {
  const std::lock_guard lock(mutex_);
  open_reason_ = reason;
  open_text_ = text;
}

void FakeBroker::SetLatch(const wire::LatchRecord& record) {
  const std::lock_guard lock(mutex_);
  latch_ = record;
}

void FakeBroker::SetBinding(int error, const std::string& octets) {
  const std::lock_guard lock(mutex_);
  bound_.error = error;
  bound_.size = static_cast<uint32_t>(octets.size());
  std::memcpy(bound_.octets, octets.data(), octets.size());
}

std::string FakeBroker::wish() const {
  const std::lock_guard lock(mutex_);
  return wish_;
}

void FakeBroker::SetTrouble(wire::Trouble trouble) {
  const std::lock_guard lock(mutex_);
  trouble_ = trouble;
}

void FakeBroker::ForgetSession() {
  const std::lock_guard lock(mutex_);
  session_known_ = false;
}

void FakeBroker::Decide(Answer answer) {
  const std::lock_guard lock(mutex_);
  for (const Waiting& one : waiting_) Conclude(one.client, one.serial, answer, one.socket);
  waiting_.clear();
}

void FakeBroker::Refuse(wire::Reason reason) {
  const std::lock_guard lock(mutex_);
  for (const int held : larval_) {
    Trouble(held, wire::Trouble::kRefused, reason);
    sockaddr none{};
    none.sa_family = AF_UNSPEC;
    Must(connect(held, &none, sizeof(none)) == 0, "disconnect");
    close(held);
  }
  larval_.clear();
}

void FakeBroker::SetHold(uint16_t port, Want want) {
  const std::lock_guard lock(mutex_);
  holds_ = true;
  hold_port_ = port;
  want_ = want;
}

uint32_t FakeBroker::flags(Type type) const {
  const std::lock_guard lock(mutex_);
  const auto found = last_.find(type);
  return found == last_.end() ? 0 : found->second.flags;
}

wire::Endpoint FakeBroker::remote(Type type) const {
  const std::lock_guard lock(mutex_);
  const auto found = last_.find(type);
  return found == last_.end() ? wire::Endpoint{} : found->second.remote;
}

int FakeBroker::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(waiting_.size());
}

int FakeBroker::withdrawn() const {
  const std::lock_guard lock(mutex_);
  return withdrawn_;
}

void FakeBroker::AwaitWaiting(int count) const {
  for (int i = 0; i < 500 && waiting() != count; ++i) usleep(10'000);
}

int FakeBroker::Count(Type type) const {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(type);
  return found == counts_.end() ? 0 : found->second;
}

void FakeBroker::Start() {
  listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strncpy(name.sun_path, path_.c_str(), sizeof(name.sun_path) - 1);
  Must(listener_ >= 0 && bind(listener_, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0 &&
           listen(listener_, kBacklog) == 0,
       "listen");
  Must(pipe2(stop_, O_CLOEXEC) == 0, "pipe");
  thread_ = std::thread(&FakeBroker::Serve, this);
}

void FakeBroker::Stop() {
  if (!thread_.joinable()) return;
  close(stop_[1]);
  thread_.join();
  close(stop_[0]);
  close(listener_);
  unlink(path_.c_str());
}

void FakeBroker::Serve() {
  std::vector<pollfd> watched = {{stop_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
  for (;;) {
    if (poll(watched.data(), watched.size(), Tick()) < 0) continue;
    if (watched[0].revents != 0) break;
    for (size_t i = watched.size() - 1; i >= 2; --i) {
      if (watched[i].revents == 0 || ServeOne(watched[i].fd)) continue;
      Withdraw(watched[i].fd);
      close(watched[i].fd);
      watched.erase(watched.begin() + static_cast<long>(i));
      --connections_;
    }
    if (watched[1].revents == 0) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    watched.push_back({client, POLLIN, 0});
    ++connections_;
  }
  for (size_t i = 2; i < watched.size(); ++i) {
    Withdraw(watched[i].fd);
    close(watched[i].fd);
    --connections_;
  }
}

bool FakeBroker::ServeOne(int client) {
  wire::Received request;
  if (wire::ReceiveMessage(client, request, /*wait=*/true) != 0) return false;
  Reply(client, request);
  wire::CloseDescriptors(request);
  return true;
}

void FakeBroker::Reply(int client, const wire::Received& request) {
  const std::lock_guard lock(mutex_);
  const Type type = request.header().type;
  const uint32_t serial = request.header().serial;
  ++counts_[type];
  if (type == Type::kOpen) {
    wire::Opened opened{};
    opened.header = wire::MakeHeader(Type::kOpened, serial);
    opened.reason = open_reason_;
    std::memcpy(opened.token, Token().data(), wire::kTokenSize);
    std::strncpy(opened.text, open_text_.c_str(), sizeof(opened.text) - 1);
    wire::SendMessage(client, &opened, sizeof(opened), nullptr, 0, /*wait=*/true);
    return;
  }
  if (type == Type::kAttach) {
    const bool known = session_known_ && std::memcmp(request.As<wire::Attach>().token,
                                                     Token().data(), wire::kTokenSize) == 0;
    wire::Attached attached{};
    attached.header = wire::MakeHeader(Type::kAttached, serial);
    attached.reason = known ? wire::Reason::kNone : wire::Reason::kNoSession;
    wire::SendMessage(client, &attached, sizeof(attached), &page_fd_, known ? 1 : 0,
                      /*wait=*/true);
    return;
  }
  if (type == Type::kInquire || type == Type::kInquirePeer) {
    latch_.header = wire::MakeHeader(Type::kLatch, serial);
    wire::SendMessage(client, &latch_, sizeof(latch_), nullptr, 0, /*wait=*/true);
    return;
  }
  if (type == Type::kBinding) {
    bound_.header = wire::MakeHeader(Type::kBound, serial);
    wire::SendMessage(client, &bound_, sizeof(bound_), nullptr, 0, /*wait=*/true);
    return;
  }
  if (type == Type::kWish) wish_ = request.As<wire::Wish>().text;
  Plan& plan = plans_[type];
  Answer answer = plan.times > 0 ? plan.first : plan.always;
  const uint16_t port = request.As<wire::SocketRequest>().remote.port;
  if (type == Type::kConnect && ports_.contains(port)) answer = ports_[port];
  if (plan.times > 0) --plan.times;
  last_[type] = request.As<wire::SocketRequest>();
  const bool unconnected = type == Type::kHold || type == Type::kPeer;
  if (holds_ && unconnected && answer.verdict == wire::Verdict::kLatched) {
    Hold(request.descriptors[0], last_[type].remote);
  }
  if (type == Type::kLatches && answer.verdict == wire::Verdict::kBypass) {
    TellLatches(request.descriptors[0], last_[type].flags);
  }
  if (type == Type::kConnect && trouble_ != wire::Trouble::kFree && request.descriptor_count == 1) {
    Trouble(request.descriptors[0], trouble_, wire::Reason::kAdmin);
  }
  const int held =
      request.descriptor_count == 1 ? fcntl(request.descriptors[0], F_DUPFD_CLOEXEC, 0) : -1;
  if (answer.waits == 0) {
    Conclude(client, serial, answer, held);
  } else {
    waiting_.push_back({client, held, serial, answer, Clock::now()});
  }
}

void FakeBroker::Hold(int socket, const wire::Endpoint& remote) const {
  uint32_t mark = 0;
  socklen_t length = sizeof(mark);
  getsockopt(socket, SOL_SOCKET, SO_MARK, &mark, &length);
  if (mark == 0) HoldSocket(socket, page_->guard_mark, hold_port_, want_);
  if (remote.family != 0 && remote.port == hold_port_) LetThrough(socket);
}

void FakeBroker::SetTold(bool connected) {
  const std::lock_guard lock(mutex_);
  connected_ = connected;
}

void FakeBroker::TellLatches(int socket, uint32_t flags) const {
  const int on = flags != 0 ? 1 : 0;
  Must(setsockopt(socket, SOL_SOCKET, SO_RCVMARK, &on, sizeof(on)) == 0, "SO_RCVMARK");
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  Must(getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0, "SO_COOKIE");
  FillLatches(*page_, cookie, flags, connected_);
}

void FakeBroker::Conclude(int client, uint32_t serial, Answer answer, int socket) {
  wire::Decision decision{};
  decision.header = wire::MakeHeader(Type::kDecision, serial);
  decision.verdict = answer.verdict;
  decision.error = answer.error;
  decision.reason = answer.reason;
  if (answer.verdict == wire::Verdict::kLarval) {
    larval_.push_back(socket);
  } else if (socket >= 0) {
    close(socket);
  }
  wire::SendMessage(client, &decision, sizeof(decision), nullptr, 0, /*wait=*/true);
}

int FakeBroker::Tick() {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  int next = -1;
  for (size_t i = waiting_.size(); i-- > 0;) {
    Waiting& one = waiting_[i];
    if (one.due <= now && one.answer.waits == 0 && one.answer.verdict != wire::Verdict::kWait) {
      Conclude(one.client, one.serial, one.answer, one.socket);
      waiting_.erase(waiting_.begin() + static_cast<long>(i));
      continue;
    }
    if (one.due <= now && one.answer.waits > 0) {
      wire::Decision wait{};
      wait.header = wire::MakeHeader(Type::kDecision, one.serial);
      wait.verdict = wire::Verdict::kWait;
      wire::SendMessage(one.client, &wait, sizeof(wait), nullptr, 0, /*wait=*/true);
      --one.answer.waits;
      one.due = now + std::chrono::milliseconds(one.answer.wait_ms);
    }
    if (one.due <= now) continue;  // silent from here on
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(one.due - now).count();
    if (next < 0 || left < next) next = static_cast<int>(left);
  }
  return next;
}

void FakeBroker::Withdraw(int client) {
  const std::lock_guard lock(mutex_);
  for (size_t i = waiting_.size(); i-- > 0;) {
    if (waiting_[i].client != client) continue;
    ++withdrawn_;
    close(waiting_[i].socket);
    waiting_.erase(waiting_.begin() + static_cast<long>(i));
  }
}

void FakeBroker::Trouble(int socket, wire::Trouble trouble, wire::Reason reason) {
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  Must(getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0, "SO_COOKIE");
  uint32_t at = wire::SlotOf(cookie);
  while (page_->slots[at].cookie.load() != 0) at = (at + 1) & (wire::kPageSlots - 1);
  page_->slots[at].reason.store(static_cast<uint32_t>(reason));
  page_->slots[at].trouble.store(trouble);
  page_->slots[at].cookie.store(cookie);
  page_->troubled.fetch_add(1);
}

}  // namespace latchkey::testing
