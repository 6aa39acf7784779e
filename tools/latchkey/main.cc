// latchkey: the launcher and control program. Only the command line is here; a verb is a file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string_view>

#include "tools/latchkey/verbs.h"
#include "tools/version.h"

namespace latchkey::tool {
namespace {

void AddRun(CLI::App& app, RunOptions& options) {
  CLI::App* run = app.add_subcommand(
      "run", "Start a program with its flows latched: run [OPTIONS] [--] PROG [ARG...]");
  run->add_option("-p,--policy", options.policy, "The program's policy (else found by its path)")
      ->type_name("FILE");
  run->add_option("--socket", options.socket, "The broker's socket")->type_name("PATH");
  run->add_flag("--keep-net-caps", options.keep_net_caps,
                "Leave the program CAP_NET_ADMIN and CAP_NET_RAW: it can then undo its latches");
  run->add_flag("--private", options.private_broker, "Start a broker for this program alone");
  run->add_flag("-v,--verbose", options.verbose, "Say which policy and broker are used");
  // From the first word that is no option of ours, everything is the program's.
  run->prefix_command();
}

void AddQueries(CLI::App& app, QueryOptions& options) {
  CLI::App* list = app.add_subcommand("list", "List the latches");
  CLI::App* show = app.add_subcommand("show", "Show one latch");
  show->add_option("ID", options.id, "The latch's id")->required();
  for (CLI::App* verb : {list, show}) {
    verb->add_flag("--json", options.json, "Print JSON");
    verb->add_option("--socket", options.socket, "Ask this broker alone")->type_name("PATH");
  }
}

// Takes the command from what `run` left over: "--" before it, when given, is not part of it.
// Returns false when there is none, or when it begins with an option that is not ours.
bool TakeCommand(std::vector<std::string> words, RunOptions& options, std::string& problem) {
  const bool marked = !words.empty() && words.front() == "--";
  if (marked) words.erase(words.begin());
  if (words.empty()) {
    problem = "run: PROG is missing";
    return false;
  }
  if (!marked && words.front().starts_with('-')) {
    problem = "run: unknown option " + words.front();
    return false;
  }
  options.command = std::move(words);
  return true;
}

int Main(int argc, char** argv) {
  const bool runs = argc > 1 && std::string_view(argv[1]) == "run";
  const int usage = runs ? kExitLauncher : kExitUsage;
  CLI::App app{"IPsec channels (RFC 5660) for unmodified programs", "latchkey"};
  app.set_version_flag("--version", std::string("latchkey ") + kVersionText);
  app.require_subcommand(1);
  RunOptions run;
  QueryOptions query;
  std::vector<std::string> files;
  AddRun(app, run);
  AddQueries(app, query);
  CLI::App* check = app.add_subcommand("check", "Check policy files");
  check->add_option("FILE", files, "Policies to check")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wish) {  // --help, --version
    return app.exit(wish);
  } catch (const CLI::ParseError& error) {
    return Report({usage, std::string(error.what()) + " (see latchkey --help)"});
  }
  if (app.got_subcommand("run")) {
    std::string problem;
    if (!TakeCommand(app.get_subcommand("run")->remaining(), run, problem)) {
      return Report({usage, problem + " (see latchkey run --help)"});
    }
    return Run(run);
  }
  if (app.got_subcommand("list")) return List(query);
  if (app.got_subcommand("show")) return Show(query);
  return Check(files);
}

}  // namespace
}  // namespace latchkey::tool

int main(int argc, char** argv) {
  try {
    return latchkey::tool::Main(argc, argv);
  } catch (const std::exception& error) {  // from CLI11 or the JSON library; nothing was exec'ed
    std::fprintf(stderr, "latchkey: %s\n", error.what());
    return latchkey::tool::kExitLauncher;
  }
}
