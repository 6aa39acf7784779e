#include "tools/latchkeyd/server/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

namespace latchkey::broker {
namespace {

struct Directory {
  Directory() {
    char name[] = "/tmp/listener_test.XXXXXX";
    path = mkdtemp(name);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string Socket() const { return path + "/broker.sock"; }
  std::string path;
};

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  return address;
}

UniqueFd Dial(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const sockaddr_un address = AddressOf(path);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    fd.Reset();
  }
  return fd;
}

TEST_CASE("The socket is everybody's to connect to, and connections know who they are with") {
  const Directory directory;
  bool handed_over = true;
  const Result<UniqueFd> listener = OpenListener(directory.Socket(), &handed_over);
  REQUIRE(listener);
  CHECK_FALSE(handed_over);
  struct stat status {};
  REQUIRE(stat(directory.Socket().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0666);
  CHECK_FALSE(AcceptConnection(listener->get()));
  CHECK(errno == EAGAIN);

  const UniqueFd client = Dial(directory.Socket());
  REQUIRE(client);
  const UniqueFd connection = AcceptConnection(listener->get());
  REQUIRE(connection);
  int on = 0;
  socklen_t length = sizeof(on);
  REQUIRE(getsockopt(connection.get(), SOL_SOCKET, SO_PASSCRED, &on, &length) == 0);
  CHECK(on != 0);
  CHECK((fcntl(connection.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((fcntl(connection.get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("A stale socket is replaced; a live one, or what is none, is left alone") {
  const Directory directory;
  bool handed_over = false;
  {
    const Result<UniqueFd> dead = OpenListener(directory.Socket(), &handed_over);
    REQUIRE(dead);
  }
  REQUIRE(access(directory.Socket().c_str(), F_OK) == 0);
  const Result<UniqueFd> live = OpenListener(directory.Socket(), &handed_over);
  REQUIRE(live);
  const Result<UniqueFd> second = OpenListener(directory.Socket(), &handed_over);
  REQUIRE_FALSE(second);
  CHECK(second.error().value.find("another latchkeyd serves it") != std::string::npos);
  CHECK(Dial(directory.Socket()));

  const std::string file = directory.path + "/file";
  close(open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const Result<UniqueFd> no = OpenListener(file, &handed_over);
  REQUIRE_FALSE(no);
  CHECK(no.error().value.find("is no socket") != std::string::npos);
  CHECK(access(file.c_str(), F_OK) == 0);
  CHECK_FALSE(OpenListener(directory.path + "/" + std::string(108, 'x'), &handed_over));
}

// In a child, since descriptor 3 and the environment are the process' own.
int TakeHandedOver(int type, const char* pid_text) {
  const pid_t child = fork();
  if (child == 0) {
    const int fd = socket(AF_UNIX, type, 0);
    if (fd != 3 && dup2(fd, 3) != 3) _exit(100);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_PID", pid_text != nullptr ? pid_text : std::to_string(getpid()).c_str(), 1);
    bool handed_over = false;
    const Result<UniqueFd> listener = OpenListener("", &handed_over);
    if (!listener) _exit(handed_over ? 1 : 2);
    const bool good = handed_over && listener->get() == 3 && getenv("LISTEN_FDS") == nullptr &&
                      (fcntl(3, F_GETFD) & FD_CLOEXEC) != 0 &&
                      (fcntl(3, F_GETFL) & O_NONBLOCK) != 0;
    _exit(good ? 0 : 3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("A socket that is handed over is taken when it is meant for us and of the right kind") {
  CHECK(TakeHandedOver(SOCK_SEQPACKET, nullptr) == 0);
  CHECK(TakeHandedOver(SOCK_STREAM, nullptr) == 1);
  CHECK(TakeHandedOver(SOCK_SEQPACKET, "1") == 2);
}

TEST_CASE("The service manager is told") {
  const Directory directory;
  const std::string path = directory.path + "/notify";
  const UniqueFd manager(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un address = AddressOf(path);
  REQUIRE(bind(manager.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  Notify("READY=1");
  unsetenv("NOTIFY_SOCKET");
  Notify("READY=2");
  char text[32] = {};
  CHECK(recv(manager.get(), text, sizeof(text) - 1, 0) == 7);
  CHECK(std::string(text) == "READY=1");
  CHECK(recv(manager.get(), text, sizeof(text) - 1, 0) < 0);
}

}  // namespace
}  // namespace latchkey::broker
