#include "tools/latchkeyd/keymgr/vici/fake_charon.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace latchkey::broker::vici {
namespace {

std::string Hex(uint32_t number) {
  char text[16];
  std::snprintf(text, sizeof(text), "%.8x", number);
  return text;
}

Section ChildSection(const FakeChild& child) {
  Section section;
  section.Add("name", child.name);
  section.Add("uniqueid", std::to_string(child.id));
  section.Add("reqid", std::to_string(child.reqid));
  section.Add("state", child.state);
  section.Add("mode", child.mode);
  section.Add("protocol", child.protocol);
  section.Add("spi-in", Hex(child.spi_in));
  section.Add("spi-out", Hex(child.spi_out));
  section.Add("encr-alg", "AES_GCM_16");
  section.Add("encr-keysize", "256");
  section.Add("local-ts", List{"10.9.0.2/32"});
  section.Add("remote-ts", List{"10.9.0.1/32[tcp/5432]"});
  return section;
}

void Must(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

}  // namespace

Section IkeSection(const FakeIke& ike, bool children) {
  Section section;
  section.Add("uniqueid", std::to_string(ike.id));
  section.Add("version", "2");
  section.Add("state", ike.state);
  section.Add("local-host", ike.local);
  section.Add("local-port", std::to_string(ike.port));
  section.Add("local-id", ike.local_id);
  section.Add("remote-host", ike.remote);
  section.Add("remote-port", std::to_string(ike.port));
  section.Add("remote-id", ike.remote_id);
  if (!ike.eap_id.empty()) section.Add("remote-eap-id", ike.eap_id);
  section.Add("initiator-spi", ike.spis);
  section.Add("responder-spi", "00000000000000bb");
  if (ike.nat_remote) {
    section.Add("nat-remote", "yes");
    section.Add("nat-any", "yes");
  }
  if (children) {
    Section& list = section.AddSection("child-sas");
    for (const FakeChild& child : ike.children) {
      list.AddSection(child.name + "-" + std::to_string(child.id)) = ChildSection(child);
    }
  }
  return section;
}

Section UpDownMessage(const FakeIke& ike, bool up, bool children) {
  Section message;
  if (up) message.Add("up", "yes");
  message.AddSection(ike.name) = IkeSection(ike, children);
  return message;
}

Section ConnMessage(const FakeConn& conn) {
  Section message;
  Section& section = message.AddSection(conn.name);
  section.Add("local_addrs", conn.local_addresses);
  section.Add("remote_addrs", conn.remote_addresses);
  section.Add("version", "IKEv2");
  Section& local = section.AddSection("local-1");
  local.Add("class", conn.local_class);
  local.Add("id", conn.local_id);
  local.Add("groups", List{});
  local.Add("certs", List{"CN=me.example"});
  for (const auto& [name, value] : conn.more) section.Add(name, value);
  Section& remote = section.AddSection("remote-1");
  remote.Add("class", conn.remote_class);
  if (!conn.remote_id.empty()) remote.Add("id", conn.remote_id);
  if (!conn.remote_cacerts.empty()) remote.Add("cacerts", conn.remote_cacerts);
  Section& child = section.AddSection("children").AddSection(conn.child);
  child.Add("mode", conn.mode);
  child.Add("local-ts", conn.local_ts);
  child.Add("remote-ts", conn.remote_ts);
  return message;
}

Section ChildRekeyMessage(const FakeIke& ike, const FakeChild& from, const FakeChild& to) {
  Section message;
  Section& section = message.AddSection(ike.name);
  section = IkeSection(ike, false);
  Section& pair = section.AddSection("child-sas").AddSection(from.name);
  pair.AddSection("old") = ChildSection(from);
  pair.AddSection("new") = ChildSection(to);
  return message;
}

Section IkeRekeyMessage(const FakeIke& from, const FakeIke& to) {
  Section message;
  Section& section = message.AddSection(from.name);
  section.AddSection("old") = IkeSection(from, false);
  section.AddSection("new") = IkeSection(to, false);
  return message;
}

Section IkeUpdateMessage(const FakeIke& ike, const std::string& local, const std::string& remote) {
  Section message;
  message.Add("local-host", local);
  message.Add("local-port", "4500");
  message.Add("remote-host", remote);
  message.Add("remote-port", "4500");
  message.AddSection(ike.name) = IkeSection(ike, false);
  return message;
}

Section LogMessage(uint32_t ike, const std::string& text) {
  Section message;
  message.Add("group", "IKE");
  message.Add("level", "1");
  if (ike != 0) message.Add("ikesa-uniqueid", std::to_string(ike));
  message.Add("msg", text);
  return message;
}

FakeCharon::FakeCharon() : path_("charon.vici") {
  // Paths of sockets are short, and Bazel's folders are not.
  const char* directory = std::getenv("TEST_TMPDIR");
  Must(chdir(directory != nullptr ? directory : "/tmp") == 0, "chdir");
  unlink(path_.c_str());
}

FakeCharon::~FakeCharon() { Stop(); }

void FakeCharon::Start() {
  unlink(path_.c_str());
  listener_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.data(), path_.size());
  Must(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0,
       "bind");
  Must(listen(listener_.get(), 3) == 0, "listen");
}

void FakeCharon::Stop(bool leave) {
  clients_.clear();
  initiates.clear();
  held_.clear();
  listener_.Reset();
  if (!leave) unlink(path_.c_str());
}

void FakeCharon::Serve() {
  while (listener_) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) break;
    clients_.push_back({std::make_shared<Connection>(std::move(fd)), {}});
  }
  for (Client& client : clients_) {
    if (client.connection->wants_write()) (void)client.connection->OnWritable();
    Result<std::vector<Packet>> packets = client.connection->OnReadable();
    if (!packets) {
      client.connection.reset();
      continue;
    }
    for (const Packet& packet : *packets) {
      if (!mute) Take(client, packet);
    }
  }
  std::erase_if(clients_, [](const Client& client) { return client.connection == nullptr; });
}

void FakeCharon::Take(Client& client, const Packet& packet) {
  Connection& connection = *client.connection;
  if (packet.type == PacketType::kRegister) {
    const bool unknown = unknown_events.contains(packet.name);
    if (!unknown) client.events.insert(packet.name);
    (void)connection.Send({unknown ? PacketType::kUnknownEvent : PacketType::kConfirm, "", {}});
    return;
  }
  if (packet.type != PacketType::kRequest) return;
  asked_.push_back(packet.name);
  if (client.events.contains("child-updown")) behind.push_back(packet.name);
  if (packet.name == "initiate") {
    initiates.push_back({client.connection, packet.message});
  } else if (packet.name == "list-sas" && holds_lists) {
    held_.push_back(client.connection);
  } else if (packet.name == "list-sas") {
    ListSas(connection);
  } else if (packet.name == "list-conns") {
    for (const FakeConn& conn : conns) {
      (void)connection.Send({PacketType::kEvent, "list-conn", ConnMessage(conn)});
    }
    (void)connection.Send({PacketType::kResponse, "", {}});
  } else if (packet.name == "list-certs") {
    for (const FakeCert& cert : certs) {
      if (cert.subject != packet.message.Value("subject")) continue;
      Packet event{PacketType::kEvent, "list-cert", {}};
      event.message.Add("type", cert.type);
      if (!cert.flag.empty()) event.message.Add("flag", cert.flag);
      if (cert.has_key) event.message.Add("has_privkey", "yes");
      event.message.Add("data", cert.data);
      (void)connection.Send(event);
    }
    (void)connection.Send({PacketType::kResponse, "", {}});
  } else if (packet.name == "load-conn" || packet.name == "unload-conn" ||
             packet.name == "terminate") {
    Packet answer{PacketType::kResponse, "", {}};
    answer.message.Add("success", refuses_conns.empty() ? "yes" : "no");
    if (!refuses_conns.empty()) answer.message.Add("errmsg", refuses_conns);
    if (packet.name == "load-conn" && refuses_conns.empty()) Load(packet.message);
    if (packet.name == "unload-conn") {
      std::erase_if(conns, [&packet](const FakeConn& conn) {
        return conn.name == packet.message.Value("name");
      });
    }
    orders.push_back(packet);
    (void)connection.Send(answer);
  } else if (packet.name == "version") {
    Packet answer{PacketType::kResponse, "", {}};
    answer.message.Add("daemon", "charon");
    answer.message.Add("version", "5.9.8");
    (void)connection.Send(answer);
  } else {
    (void)connection.Send({PacketType::kUnknownCommand, "", {}});
  }
}

void FakeCharon::Load(const Section& message) {
  FakeConn conn;
  conn.name = message.elements.at(0).name;
  const Section& section = *message.elements.at(0).section();
  conn.local_addresses = section.Items("local_addrs");
  conn.remote_addresses = section.Items("remote_addrs");
  conn.remote_id = section.Sub("remote")->Value("id").value_or("");
  const Element& child = section.Sub("children")->elements.at(0);
  conn.child = child.name;
  conn.local_ts = child.section()->Items("local_ts");
  conn.remote_ts = child.section()->Items("remote_ts");
  conns.push_back(conn);
}

void FakeCharon::ListSas(Connection& connection) {
  for (const FakeIke& ike : sas) {
    (void)connection.Send({PacketType::kEvent, "list-sa", UpDownMessage(ike, false, true)});
  }
  (void)connection.Send({PacketType::kResponse, "", {}});
}

void FakeCharon::ReleaseLists() {
  holds_lists = false;
  for (const std::shared_ptr<Connection>& connection : std::exchange(held_, {})) {
    ListSas(*connection);
  }
}

void FakeCharon::Event(const std::string& name, const Section& message) {
  for (const Client& client : clients_) {
    if (client.events.contains(name)) {
      (void)client.connection->Send({PacketType::kEvent, name, message});
    }
  }
}

void FakeCharon::Raw(const std::string& octets) {
  for (const Client& client : clients_) {
    if (!client.events.contains("log")) continue;
    Must(write(client.connection->fd(), octets.data(), octets.size()) >= 0, "write");
  }
}

void FakeCharon::ControlLog(size_t which, const std::string& text, uint32_t ike) {
  (void)initiates.at(which).connection->Send(
      {PacketType::kEvent, "control-log", LogMessage(ike, text)});
}

void FakeCharon::Answer(size_t which, const std::string& errmsg) {
  Packet answer{PacketType::kResponse, "", {}};
  answer.message.Add("success", errmsg.empty() ? "yes" : "no");
  if (!errmsg.empty()) answer.message.Add("errmsg", errmsg);
  (void)initiates.at(which).connection->Send(answer);
}

size_t FakeCharon::Asked(const std::string& command) const {
  return static_cast<size_t>(std::ranges::count(asked_, command));
}

}  // namespace latchkey::broker::vici
