#include "shim/testing/harness.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace latchkey::testing {
namespace {

constexpr int kPatienceSeconds = 20;
constexpr int kBacklog = 512;

// Set in the test's BUILD target; relative to the runfiles, where bazel starts tests.
std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : std::filesystem::absolute(value).string();
}

}  // namespace

Server::Server(Manner manner)
    : manner_(manner), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* name = reinterpret_cast<sockaddr*>(&address);
  const bool full = manner_ == Manner::kFull;
  if (bind(listener_, name, length) != 0 || listen(listener_, full ? 0 : kBacklog) != 0 ||
      getsockname(listener_, name, &length) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  if (!full) {
    Open();
    return;
  }
  // A backlog of 0 has room for one.
  filler_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(filler_, name, length) != 0) std::abort();
}

void Server::Open() { thread_ = std::thread(&Server::Serve, this); }

Server::~Server() {
  shutdown(listener_, SHUT_RDWR);
  if (thread_.joinable()) thread_.join();
  if (filler_ >= 0) close(filler_);
  close(listener_);
}

void Server::Serve() const {
  std::vector<int> held;
  for (;;) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) break;
    if (manner_ == Manner::kClosing || manner_ == Manner::kHolding)
      send(client, "hello", 5, MSG_NOSIGNAL);
    if (manner_ == Manner::kClosing) {
      close(client);
    } else {
      held.push_back(client);
    }
  }
  for (const int client : held) close(client);
}

Probe::Probe(const std::string& name, uint16_t port,
             const std::map<std::string, std::string>& environment) {
  const std::string program = FromEnvironment("PROBE");
  const std::string shim = FromEnvironment("SHIM");
  if (program.empty() || shim.empty()) std::abort();
  std::vector<std::string> variables;
  std::string preload = shim;
  for (const auto& [key, value] : environment) {
    if (key == "LD_PRELOAD") {
      preload += ":" + value;
    } else {
      variables.push_back(key + "=" + value);
    }
  }
  if (!environment.empty()) variables.push_back("LD_PRELOAD=" + preload);
  const std::string number = std::to_string(port);
  std::vector<char*> arguments;
  // execve's parameters lack a const for the sake of old C; it writes to none of it.
  for (const std::string* text : {&program, &name, &number}) {
    arguments.push_back(const_cast<char*>(text->c_str()));
  }
  arguments.push_back(nullptr);
  std::vector<char*> pointers;
  for (const std::string& text : variables) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);

  int in[2];
  int out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
  error_ = memfd_create("errors", MFD_CLOEXEC);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(error_, STDERR_FILENO);
    // The probe starts with the standard streams alone, whatever the test itself inherited.
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    alarm(kPatienceSeconds);  // outlives exec; a hung probe ends with SIGALRM
    execve(program.c_str(), arguments.data(), pointers.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  in_ = in[1];
  out_ = out[0];
}

Probe::~Probe() {
  if (pid_ > 0) Finish();
  close(out_);
  close(error_);
}

std::string Probe::ReadUntil(const std::string& last) {
  std::string text;
  char octet;
  while (read(out_, &octet, 1) == 1) {
    text += octet;
    if (!last.empty() && text.ends_with(last + "\n")) break;
  }
  return text;
}

void Probe::Signal(int number) const { kill(pid_, number); }

void Probe::Continue() {
  if (write(in_, "\n", 1) != 1) std::abort();
}

std::string Probe::Finish() {
  close(in_);
  std::string text = ReadUntil("");
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  if (WIFSIGNALED(status)) return text + "signal " + std::to_string(WTERMSIG(status)) + "\n";
  const int code = WEXITSTATUS(status);
  return code == 0 ? text : text + "status " + std::to_string(code) + "\n";
}

std::string Probe::errors() {
  std::string text(4096, '\0');
  const ssize_t size = pread(error_, text.data(), text.size(), 0);
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return text;
}

}  // namespace latchkey::testing
