#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "tools/latchkey/capabilities.h"
#include "tools/latchkey/client.h"
#include "tools/latchkey/deny_io_uring.h"
#include "tools/latchkey/environment.h"
#include "tools/latchkey/handed_sockets.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/private_broker.h"
#include "tools/latchkey/program.h"
#include "tools/latchkey/siblings.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

struct Session {
  std::string socket;
  Client client;
};

// The policy given or found, and the name under which the broker will find the program in it.
struct Choice {
  std::optional<PolicyFile> policy;
  std::string program;
};

Outcome<Choice> ChoosePolicy(const RunOptions& options, const Program& program) {
  if (options.policy.empty()) {
    auto found = FindPolicy(kPolicyFolder, program);
    if (!found) return std::unexpected(found.error());
    const std::string name = *found ? *ListedAs((*found)->policy, program) : program.absolute;
    return Choice{std::move(*found), name};
  }
  auto file = LoadPolicy(options.policy);
  if (!file) return std::unexpected(file.error());
  const std::optional<std::string> listed = ListedAs(file->policy, program);
  if (!listed) {
    std::string list;
    for (const std::string& name : file->policy.program) {
      list += (list.empty() ? "\"" : ", \"") + name + "\"";
    }
    return Refuse(kExitLauncher, file->name + ": its program list (" + list + ") does not hold \"" +
                                     program.absolute + "\"");
  }
  return Choice{std::move(*file), *listed};
}

// The program may change its folder and go on to connect: the socket's path must not depend on it.
Outcome<std::string> Absolute(const std::string& path) {
  if (path.starts_with('/')) return path;
  char* folder = getcwd(nullptr, 0);
  if (folder == nullptr) return Refuse(kExitLauncher, path + ": " + std::strerror(errno));
  std::string absolute = std::string(folder) + "/" + path;
  std::free(folder);
  return absolute;
}

Outcome<Session> StartPrivate() {
  if (!HasNetAdmin()) {
    return Refuse(kExitLauncher, "a private broker needs CAP_NET_ADMIN: run as root");
  }
  auto started = StartPrivateBroker();
  if (!started) return std::unexpected(started.error());
  return Session{started->socket, std::move(started->client)};
}

Outcome<Session> FindBrokerFor(const RunOptions& options) {
  if (options.private_broker) return StartPrivate();
  const char* environment = TrustedEnvironment("LATCHKEY_SOCKET");
  const bool chosen = !options.socket.empty() || environment != nullptr;
  auto path = Absolute(!options.socket.empty()  ? options.socket
                       : environment != nullptr ? environment
                                                : kDefaultSocket);
  if (!path) return std::unexpected(path.error());
  auto client = Client::Connect(*path);
  // A broker of another network namespace would refuse every flow of this one.
  const bool foreign = !chosen && client && client->ServesThisNamespace() == false;
  if (foreign && HasNetAdmin()) return StartPrivate();
  if (client) return Session{*path, std::move(*client)};
  if (client.error() != ENOENT && client.error() != ECONNREFUSED) {
    return Refuse(kExitLauncher, "broker at " + *path + ": " + std::strerror(client.error()));
  }
  if (!chosen && HasNetAdmin()) return StartPrivate();
  return Refuse(kExitLauncher, "no broker at " + *path + ": start latchkeyd" +
                                   (chosen ? " there" : ", or run as root"));
}

// Why the program is not fenced; empty when it is.
std::string NotFenced(const RunOptions& options, const Client::Session& session) {
  if (session.fenced) return {};
  if (options.no_fence) return "--no-fence";
  return session.not_fenced.empty() ? "the broker has none" : session.not_fenced;
}

// What the fence does not cover is said where the fence alone is meant to: the shim asks about each
// socket, whoever made it. Without a fence there is nothing to say.
Outcome<void> CheckHanded(const RunOptions& options, const std::string& loadable) {
  if (options.no_fence || (loadable.empty() && !options.fence && !options.verbose)) return {};
  const std::string outside = OutsideOfFence();
  if (outside.empty()) return {};
  if (!loadable.empty()) return Refuse(kExitCannotRun, loadable + "; and " + outside);
  if (options.fence) return Refuse(kExitCannotRun, outside);
  Report({kExitLauncher, outside + ": only the shim sees to them"});
  return {};
}

// Becomes the program. Returns only on failure.
Refusal Execute(const std::string& path, const std::vector<std::string>& command,
                const std::vector<std::string>& environment) {
  // execve takes char* const*, for the sake of old C, and writes to none of it.
  const auto pointers = [](const std::vector<std::string>& strings) {
    std::vector<char*> list;
    for (const std::string& text : strings) list.push_back(const_cast<char*>(text.c_str()));
    list.push_back(nullptr);
    return list;
  };
  execve(path.c_str(), pointers(command).data(), pointers(environment).data());
  const int exit = errno == ENOENT ? kExitNotFound : kExitCannotRun;
  return {exit, path + ": " + std::strerror(errno)};
}

}  // namespace

int Run(const RunOptions& options) {
  const char* search_path = std::getenv("PATH");
  const auto say = [&options](const std::string& text) {
    if (options.verbose) Report({kExitLauncher, text});
  };
  const auto program = FindProgram(options.command.front(), search_path);
  if (!program) return Report(program.error());
  const auto loadable = CheckLoadable(program->path, search_path);
  if (!loadable) return Report(loadable.error());
  if (!loadable->empty() && options.no_fence) return Report({kExitCannotRun, *loadable});
  const auto handed = CheckHanded(options, *loadable);
  if (!handed) return Report(handed.error());
  const auto shim = FindShim();
  if (!shim) return Report(shim.error());

  auto choice = ChoosePolicy(options, *program);
  if (!choice) return Report(choice.error());
  say(choice->policy ? "policy " + choice->policy->name
                     : "no policy for " + program->absolute + ": the system's alone holds");

  auto session = FindBrokerFor(options);
  if (!session) return Report(session.error());
  say("broker at " + session->socket);
  std::vector<int> files;
  if (choice->policy) files.push_back(choice->policy->fd.get());
  if (choice->policy && choice->policy->signature) files.push_back(choice->policy->signature.get());
  const auto fence = options.no_fence    ? Client::Fence::kNone
                     : loadable->empty() ? Client::Fence::kWanted
                                         : Client::Fence::kNeeded;
  const auto opened = session->client.Open(choice->program, files,
                                           choice->policy ? choice->policy->name : "", fence);
  if (!opened && fence == Client::Fence::kNeeded) {
    return Report({kExitCannotRun, *loadable + "; and no fence: " + opened.error()});
  }
  if (!opened) return Report({kExitLauncher, opened.error()});
  // A fence that is missing is said aloud, and so is one that is all there is.
  if (const std::string why = NotFenced(options, *opened); !why.empty()) {
    if (options.fence) return Report({kExitLauncher, "not fenced: " + why});
    Report({kExitLauncher, "not fenced: " + why + ": what gets past the shim goes by the SPD"});
  } else if (!loadable->empty()) {
    Report({kExitLauncher, *loadable + ": fenced, not latched"});
  }

  if (!options.keep_net_caps) {
    const auto dropped = DropNetworkCapabilities();
    if (!dropped) {
      return Report({kExitLauncher, dropped.error().ToString() +
                                        ": the program could undo its latch (--keep-net-caps "
                                        "allows that)"});
    }
  }
  // Last: a launcher needs its privileges whole, a program inherits what is left.
  if (choice->policy && choice->policy->policy.deny_io_uring) {
    if (const auto denied = DenyIoUring(); !denied) {
      return Report({kExitLauncher, choice->policy->name + ": " + denied.error().ToString()});
    }
  }
  return Report(Execute(program->path, options.command,
                        LatchedEnvironment(environ, *shim, session->socket, opened->token)));
}

}  // namespace latchkey::tool
