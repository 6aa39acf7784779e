// What the broker does to one unconnected UDP socket, command by command: the kernel's part alone.
//
// datagrams-probe PINS [FD]: reads commands, a line each, and answers each with one line. PINS: a
// folder for the filter's maps, or "" for none. FD: a socket that it was started with.
//   bind ADDRESS PORT                  a socket
//   keep COMMAND...                    becomes another program, which inherits the socket
//   unprivileged                       as the broker after its start
//   filter PREFIX[@PORT]=pass|tag|drop...
//   tag SPI TAG MASK                   the incoming SA of this SPI
//   mark SPI                           what it marks with, and when it was made
//   admit|dismiss ADDRESS PORT TAG
//   forget
//   recv                               within 2 s: what came and from whom, or "nothing"
//   dropped
//   events                             of SAs that came or changed
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/real_kernel.h"
#include "tools/latchkeyd/server/privileges.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

constexpr uint32_t kTagMask = 0x7fff0000;
constexpr int kPatienceMs = 2000;

uint32_t Number(const std::string& text) {
  return static_cast<uint32_t>(std::stoul(text, nullptr, 0));
}

std::string Hex(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%x", value);
  return text;
}

std::string Told(const Result<void>& done) { return done ? "ok" : done.error().ToString(); }

class Probe {
 public:
  Probe(std::unique_ptr<RealKernel> kernel, int fd) : kernel_(std::move(kernel)), fd_(fd) {}

  std::string Run(const std::string& line) {
    std::istringstream words(line);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    if (all.empty()) return "?";
    const std::string command = all[0];
    all.erase(all.begin());
    if (command == "bind") return Bind(all.at(0), Number(all.at(1)));
    if (command == "keep") return Keep(line.substr(line.find(' ') + 1));
    if (command == "unprivileged") return Told(DropPrivileges());
    if (command == "filter") return Filter(all);
    if (command == "tag") return Tag(all);
    if (command == "mark") return Mark(Number(all.at(0)));
    if (command == "recv") return Receive();
    if (command == "dropped") return std::to_string(kernel_->DroppedDatagrams(Facts().cookie));
    if (command == "forget") return kernel_->ForgetDatagrams(Facts().cookie), "ok";
    if (command == "events") return Events();
    if (command != "admit" && command != "dismiss") return "?";
    const DatagramAdmission admission{
        Facts().cookie,
        {Address::Parse(all.at(0)).value(), static_cast<uint16_t>(Number(all.at(1)))},
        Number(all.at(2))};
    if (command == "admit") return Told(kernel_->Admit(admission));
    return kernel_->Dismiss(admission), "ok";
  }

 private:
  SocketFacts Facts() { return kernel_->Inspect(fd_.get()).value(); }

  std::string Bind(const std::string& address, uint32_t port) {
    const Address read = Address::Parse(address).value();
    const bool v6 = read.family == Family::kV6;
    fd_ = UniqueFd(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
    sockaddr_storage name{};
    const socklen_t length = ToSockaddr({read, static_cast<uint16_t>(port)}, v6, 0, &name);
    return bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), length) == 0 ? "ok"
                                                                            : strerror(errno);
  }

  // The kernel port ends without its destructors, as with a broker that is killed.
  std::string Keep(const std::string& command) {
    std::cout << "ok" << std::endl;
    setenv("FD", std::to_string(fd_.get()).c_str(), 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    return strerror(errno);
  }

  std::string Filter(const std::vector<std::string>& words) {
    std::vector<DatagramRegion> regions;
    for (const std::string& word : words) {
      const size_t equals = word.find('=');
      const size_t at = word.find('@');
      DatagramRegion region;
      region.remote = Prefix::Parse(word.substr(0, std::min(at, equals))).value();
      if (at != std::string::npos) region.port = static_cast<uint16_t>(Number(word.substr(at + 1)));
      const std::string need = word.substr(equals + 1);
      region.need = need == "pass"  ? DatagramRegion::Need::kPass
                    : need == "tag" ? DatagramRegion::Need::kTag
                                    : DatagramRegion::Need::kDrop;
      regions.push_back(region);
    }
    return Told(kernel_->FilterDatagrams(fd_.get(), Facts(), regions));
  }

  std::optional<Sa> Find(uint32_t spi) {
    const std::vector<Sa> all = kernel_->DumpSad().value();
    const auto found = std::ranges::find(all, spi, [](const Sa& sa) { return sa.key.spi; });
    return found == all.end() ? std::nullopt : std::optional<Sa>(*found);
  }

  std::string Tag(const std::vector<std::string>& words) {
    const std::optional<Sa> sa = Find(Number(words.at(0)));
    if (!sa) return "no such SA";
    return Told(kernel_->TagSa(*sa, Number(words.at(1)), Number(words.at(2))));
  }

  std::string MarkOf(const Sa& sa) {
    return Hex(sa.set_mark) + "/" + Hex(sa.set_mask) + " " + std::to_string(sa.added);
  }

  std::string Mark(uint32_t spi) {
    const std::optional<Sa> sa = Find(spi);
    return sa ? MarkOf(*sa) : "no such SA";
  }

  std::string Events() {
    std::string text;
    const std::vector<KernelEvent> events = kernel_->ReadEvents().value();
    for (const KernelEvent& event : events) {
      if (!text.empty()) text += ", ";
      text += event.kind == KernelEvent::Kind::kSaAdded
                  ? Hex(event.sa.key.spi) + " " + MarkOf(event.sa)
                  : "kind " + std::to_string(static_cast<int>(event.kind));
    }
    return text.empty() ? "none" : text;
  }

  std::string Receive() {
    pollfd wait{fd_.get(), POLLIN, 0};
    if (poll(&wait, 1, kPatienceMs) == 0) return "nothing";
    char text[2048];
    sockaddr_storage name{};
    socklen_t length = sizeof(name);
    const ssize_t size =
        recvfrom(fd_.get(), text, sizeof(text), 0, reinterpret_cast<sockaddr*>(&name), &length);
    if (size < 0) return strerror(errno);
    return std::string(text, static_cast<size_t>(size)) + " from " +
           FromSockaddr(name, length).address.ToString();
  }

  std::unique_ptr<RealKernel> kernel_;
  UniqueFd fd_;
};

int Main(int argc, char** argv) {
  const std::string pins = argc > 1 ? argv[1] : "";
  Result<std::unique_ptr<RealKernel>> kernel = RealKernel::Open({}, {kTagMask, pins});
  if (!kernel) {
    std::cout << kernel.error().ToString() << std::endl;
    return 1;
  }
  std::cout << "ready " << (*kernel)->DatagramComplaint() << std::endl;
  Probe probe(std::move(*kernel), argc > 2 ? std::stoi(argv[2]) : -1);
  for (std::string line; std::getline(std::cin, line);) std::cout << probe.Run(line) << std::endl;
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main(int argc, char** argv) {
  try {
    return latchkey::broker::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cout << "exception: " << error.what() << std::endl;
    return 1;
  }
}
