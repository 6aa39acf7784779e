#include "tools/latchkey/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <thread>

namespace latchkey::tool {
namespace {

struct Request {
  std::vector<std::byte> octets;
  std::vector<UniqueFd> descriptors;
  wire::Header header{};
};

// A broker of one connection: `answer` turns each request into the octets of its reply; empty
// closes the connection.
class FakeBroker {
 public:
  using Answer = std::function<std::vector<std::byte>(const Request&)>;

  explicit FakeBroker(Answer answer) {
    const char* base = getenv("TEST_TMPDIR");
    folder_ = std::string(base != nullptr ? base : "/tmp") + "/clientXXXXXX";
    REQUIRE(mkdtemp(folder_.data()) != nullptr);
    // Relative to the folder's descriptor: a sandbox's path may be too long for a socket's name.
    folder_fd_.Reset(open(folder_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    path_ = "/proc/self/fd/" + std::to_string(folder_fd_.get()) + "/broker.sock";
    listener_.Reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    REQUIRE(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(listen(listener_.get(), 4) == 0);
    thread_ = std::thread([this, answer = std::move(answer)] { Serve(answer); });
  }
  ~FakeBroker() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  void Serve(const Answer& answer) {
    const UniqueFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) return;
    while (true) {
      std::vector<std::byte> buffer(wire::kMaxMessage);
      alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
      iovec in{buffer.data(), buffer.size()};
      msghdr message{};
      message.msg_iov = &in;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      const ssize_t count = recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC);
      if (count <= 0) return;
      Request request;
      buffer.resize(static_cast<size_t>(count));
      request.octets = buffer;
      std::memcpy(&request.header, buffer.data(), sizeof(request.header));
      for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        const size_t number = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; ++i) {
          int fd;
          std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
          request.descriptors.emplace_back(fd);
        }
      }
      const auto reply = answer(request);
      if (reply.empty()) return;
      if (send(connection.get(), reply.data(), reply.size(), MSG_NOSIGNAL) < 0) return;
    }
  }

  std::string folder_, path_;
  UniqueFd folder_fd_, listener_;
  std::thread thread_;
};

template <typename T>
std::vector<std::byte> Octets(const T& message) {
  const auto octets = std::as_bytes(std::span(&message, 1));
  return {octets.begin(), octets.end()};
}

template <typename T>
T Reply(const Request& request, wire::Type type) {
  T reply{};
  reply.header = wire::Header{wire::kMagic, wire::kVersion, type, sizeof(T), request.header.serial};
  return reply;
}

template <typename T>
T As(const Request& request) {
  T message{};
  if (request.octets.size() == sizeof(T)) std::memcpy(&message, request.octets.data(), sizeof(T));
  return message;
}

// A broker that knows latches 3 and 8.
std::vector<std::byte> TwoLatches(const Request& request) {
  const auto query = As<wire::Query>(request);
  auto record = Reply<wire::LatchRecord>(request, wire::Type::kLatch);
  for (const uint64_t id : {3, 8}) {
    const bool wanted = request.header.type == wire::Type::kList ? id > query.id : id == query.id;
    if (!wanted) continue;
    Latch latch;
    latch.id = id;
    const wire::Header header = record.header;
    record = ToWire(latch);
    record.header = header;
    break;
  }
  return Octets(record);
}

TEST_CASE("Opens a session: names, flags and descriptors") {
  wire::Open seen{};
  size_t descriptors = 0;
  std::string policy_text(5, '\0');
  FakeBroker broker([&](const Request& request) {
    seen = As<wire::Open>(request);
    descriptors = request.descriptors.size();
    if (pread(request.descriptors[0].get(), policy_text.data(), 5, 0) != 5) policy_text = "?";
    auto reply = Reply<wire::Opened>(request, wire::Type::kOpened);
    for (size_t i = 0; i < wire::kTokenSize; ++i) reply.token[i] = static_cast<uint8_t>(i + 1);
    return Octets(reply);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->ServesThisNamespace() == true);
  const UniqueFd policy(memfd_create("policy", MFD_CLOEXEC));
  REQUIRE(write(policy.get(), "rules", 5) == 5);
  const auto token =
      client->Open("/usr/bin/curl", {policy.get()}, "app.toml", Client::Fence::kNone);
  REQUIRE(token);
  CHECK(token->token[0] == 1);
  CHECK(token->token[31] == 32);
  CHECK_FALSE(token->fenced);
  CHECK(seen.flags == wire::kOpenLauncher);
  CHECK(std::string(seen.program) == "/usr/bin/curl");
  CHECK(std::string(seen.policy) == "app.toml");
  CHECK(descriptors == 2);
  CHECK(policy_text == "rules");
}

TEST_CASE("Without policy it says so and sends its pidfd alone") {
  uint32_t flags = 0;
  size_t descriptors = 0;
  FakeBroker broker([&](const Request& request) {
    flags = As<wire::Open>(request).flags;
    descriptors = request.descriptors.size();
    auto reply = Reply<wire::Opened>(request, wire::Type::kOpened);
    reply.token[0] = 1;
    return Octets(reply);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kNone).has_value());
  CHECK(flags == (wire::kOpenLauncher | wire::kOpenNoPolicy));
  CHECK(descriptors == 1);
}

TEST_CASE("A refusal carries the broker's words and its reason") {
  FakeBroker broker([](const Request& request) {
    auto reply = Reply<wire::Opened>(request, wire::Type::kOpened);
    reply.reason = wire::Reason::kLimit;
    reply.token[0] = 1;
    std::strcpy(reply.text, "too many sessions");
    return Octets(reply);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kNone).error() ==
        "too many sessions (limit)");
}

TEST_CASE("An opened session without a token is none") {
  FakeBroker broker([](const Request& request) {
    return Octets(Reply<wire::Opened>(request, wire::Type::kOpened));
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kNone).error() ==
        "the broker gave no token");
}

TEST_CASE("A fence that is needed and does not stand is no session") {
  uint16_t fenced = 1;
  uint32_t flags = 0;
  FakeBroker broker([&](const Request& request) {
    flags = As<wire::Open>(request).flags;
    auto reply = Reply<wire::Opened>(request, wire::Type::kOpened);
    reply.token[0] = 1;
    reply.fenced = fenced;
    if (fenced == 0) std::strcpy(reply.text, "no cgroups");
    return Octets(reply);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kWanted)->fenced);
  CHECK(flags == (wire::kOpenLauncher | wire::kOpenNoPolicy | wire::kOpenFence));
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kNeeded)->fenced);
  CHECK((flags & wire::kOpenUnlatched) != 0);
  fenced = 0;
  CHECK(client->Open("/bin/true", {}, "", Client::Fence::kWanted)->not_fenced == "no cgroups");
  // Of a broker that knows nothing of fences.
  CHECK_FALSE(client->Open("/bin/true", {}, "", Client::Fence::kNeeded));
}

TEST_CASE("A program's path is never cut") {
  FakeBroker broker([](const Request&) { return std::vector<std::byte>(); });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  const auto token =
      client->Open("/" + std::string(wire::kPathSize, 'x'), {}, "", Client::Fence::kNone);
  REQUIRE_FALSE(token);
  CHECK(token.error().find("longer than 255 octets") != std::string::npos);
}

TEST_CASE("Lists from id to id and shows one") {
  FakeBroker broker(TwoLatches);
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Next(0).value()->id == 3);
  CHECK(client->Next(3).value()->id == 8);
  CHECK_FALSE(client->Next(8).value());
  CHECK(client->Show(8).value()->id == 8);
  CHECK_FALSE(client->Show(4).value());
}

TEST_CASE("Answers out of order and about another latch are refused") {
  FakeBroker broker([](const Request& request) {
    Latch latch;
    latch.id = 5;
    auto record = ToWire(latch);
    record.header.serial = request.header.serial;
    return Octets(record);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Next(5).error() == "the broker's answers are out of order");
  CHECK(client->Show(6).error() == "the broker answered about another latch");
}

TEST_CASE("Breaks and resumes by id, and brings the broker's word") {
  FakeBroker broker([](const Request& request) {
    auto done = Reply<wire::Done>(request, wire::Type::kDone);
    const bool breaks = request.header.type == wire::Type::kBreak;
    const bool known = breaks && As<wire::Query>(request).id == 8;
    done.reason = known ? wire::Reason::kNone : wire::Reason::kBadRequest;
    return Octets(done);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  CHECK(client->Break(8) == wire::Reason::kNone);
  CHECK(client->Break(7) == wire::Reason::kBadRequest);
  CHECK(client->Resume(8) == wire::Reason::kBadRequest);
}

TEST_CASE("Events come after the answer, one at a time, and never from elsewhere") {
  // Each request, after the first, has the fake send one event.
  uint32_t watch_serial = 0;
  uint32_t off = 0;
  FakeBroker broker([&](const Request& request) {
    if (request.header.type == wire::Type::kWatch) {
      watch_serial = request.header.serial;
      return Octets(Reply<wire::Done>(request, wire::Type::kDone));
    }
    Latch latch;
    latch.id = 5;
    auto event = Reply<wire::EventRecord>(request, wire::Type::kEvent);
    event.header.serial = watch_serial + off;
    event.direction = static_cast<uint8_t>(Direction::kOut);
    event.latch = ToWire(latch);
    return Octets(event);
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  REQUIRE(client->Watch() == wire::Reason::kNone);
  CHECK_FALSE(client->NextEvent().value());
  const auto prompt = [&] {
    const char any[sizeof(wire::Header)] = {};
    REQUIRE(send(client->fd(), any, sizeof(any), MSG_NOSIGNAL) == sizeof(any));
    pollfd waiting{client->fd(), POLLIN, 0};
    REQUIRE(poll(&waiting, 1, 10'000) == 1);
  };
  prompt();
  const auto event = client->NextEvent();
  REQUIRE(event);
  REQUIRE(*event);
  CHECK((*event)->latch.id == 5);
  CHECK_FALSE(client->NextEvent().value());
  off = 1;
  prompt();
  CHECK(client->NextEvent().error() == "the broker's answer is damaged");
}

TEST_CASE("Damaged answers are refused") {
  using Damage = std::function<void(std::vector<std::byte>&, wire::Header&)>;
  const std::string damaged = "the broker's answer is damaged";
  std::string expected = damaged;
  Damage damage;
  SECTION("short") {
    damage = [](auto& octets, auto&) { octets.resize(octets.size() - 1); };
  }
  SECTION("long") {
    damage = [](auto& octets, auto&) { octets.resize(octets.size() + 1); };
  }
  SECTION("larger than any message") {
    damage = [](auto& octets, auto&) { octets.resize(wire::kMaxMessage + 1); };
  }
  SECTION("a header cut short") {
    damage = [](auto& octets, auto&) { octets.resize(sizeof(wire::Header) - 1); };
  }
  SECTION("size") {
    damage = [](auto&, auto& header) { ++header.size; };
  }
  SECTION("type") {
    damage = [](auto&, auto& header) { header.type = wire::Type::kOpened; };
  }
  SECTION("serial") {
    damage = [](auto&, auto& header) { ++header.serial; };
  }
  SECTION("magic") {
    damage = [](auto&, auto& header) { ++header.magic; };
  }
  SECTION("version") {
    damage = [](auto&, auto& header) { ++header.version; };
    expected = "the broker is of another version";
  }
  SECTION("none") {
    damage = [](auto& octets, auto&) { octets.clear(); };
    expected = "the broker closed the connection";
  }
  FakeBroker broker([&](const Request& request) {
    auto octets = TwoLatches(request);
    wire::Header header;
    std::memcpy(&header, octets.data(), sizeof(header));
    damage(octets, header);
    if (octets.size() >= sizeof(header)) std::memcpy(octets.data(), &header, sizeof(header));
    return octets;
  });
  auto client = Client::Connect(broker.path());
  REQUIRE(client);
  const auto latch = client->Next(0);
  REQUIRE_FALSE(latch);
  CHECK(latch.error() == expected);
}

TEST_CASE("Connecting fails with an errno") {
  CHECK(Client::Connect("/no/such/socket").error() == ENOENT);
  CHECK(Client::Connect("").error() == ENAMETOOLONG);
  CHECK(Client::Connect(std::string(200, 'x')).error() == ENAMETOOLONG);
}

TEST_CASE("A named socket is the only one asked") {
  CHECK(BrokerSockets("/x.sock") == std::vector<std::string>{"/x.sock"});
  std::vector<std::string> problems;
  CHECK(ConnectAll("/no/such/socket", problems).empty());
  REQUIRE(problems.size() == 1);
  CHECK(problems[0] == "no broker at /no/such/socket: start latchkeyd");
}

}  // namespace
}  // namespace latchkey::tool
