// latchkey: the launcher and control program. Only the command line is here; a verb is a file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "tools/latchkey/verbs.h"
#include "tools/version.h"

namespace latchkey::tool {
namespace {

CLI::App* AddRun(CLI::App& app, RunOptions& options) {
  CLI::App* run = app.add_subcommand(
      "run", "Start a program with its flows latched: run [OPTIONS] [--] PROG [ARG...]");
  run->add_option("-p,--policy", options.policy, "The program's policy (else found by its path)")
      ->type_name("FILE");
  run->add_option("--socket", options.socket, "The broker's socket")->type_name("PATH");
  run->add_flag("--keep-net-caps", options.keep_net_caps,
                "Leave the program CAP_NET_ADMIN and CAP_NET_RAW: it can then undo its latches");
  run->add_flag("--private", options.private_broker, "Start a broker for this program alone");
  CLI::Option* fence =
      run->add_flag("--fence", options.fence, "Run it behind the fence or not at all");
  run->add_flag("--no-fence", options.no_fence,
                "Without the fence: what gets past the shim (raw calls, io_uring) goes by the SPD")
      ->excludes(fence);
  run->add_flag("-v,--verbose", options.verbose, "Say which policy and broker are used");
  return run;
}

void AddQueries(CLI::App& app, QueryOptions& options, std::string& id) {
  CLI::App* list = app.add_subcommand("list", "List the latches");
  CLI::App* show = app.add_subcommand("show", "Show one latch");
  CLI::App* why = app.add_subcommand("why", "Tell the last refusals and breaks, newest first");
  list->add_flag("--spd", options.spd, "The SPD's entries and per-socket policies, and whose");
  show->add_option("ID", id, "The latch's id")->required();
  why->add_option("ID", id, "Of this process or latch alone")->type_name("PID|ID");
  CLI::App* watch = app.add_subcommand("watch", "Tell every change of a latch as it happens");
  CLI::App* breaks = app.add_subcommand("break", "Break a latch: its program gets ECONNRESET");
  CLI::App* resume = app.add_subcommand("resume", "Let a suspended latch that was broken go on");
  for (CLI::App* verb : {breaks, resume}) {
    verb->add_option("ID", id, "The latch's id")->required();
  }
  for (CLI::App* verb : {list, show, why, watch}) {
    verb->add_flag("--json", options.json, "Print JSON");
  }
  for (CLI::App* verb : {list, show, why, watch, breaks, resume}) {
    verb->add_option("--socket", options.socket, "Ask this broker alone")->type_name("PATH");
  }
}

void AddSa(CLI::App& app, SaOptions& options) {
  CLI::App* sa = app.add_subcommand("sa", "Install or delete manually keyed SAs and say whose");
  sa->require_subcommand(1);
  for (CLI::App* verb : {sa->add_subcommand("add", "Derive a pair of SAs and install them"),
                         sa->add_subcommand("delete", "Delete the pair and its PAD entry")}) {
    verb->add_option("--secret-file", options.secret_file, "The secret both hosts share")
        ->required()
        ->type_name("FILE");
    verb->add_option("--local", options.local, "Our address")->required()->type_name("ADDRESS");
    verb->add_option("--remote", options.remote, "The peer's address")
        ->required()
        ->type_name("ADDRESS");
    verb->add_option("--reqid", options.reqid, "The same on both hosts")->required();
    verb->add_option("--id", options.id, "Our identity")->required();
    verb->add_option("--peer-id", options.peer_id, "The peer's identity")->required();
    verb->add_option("--suite", options.suite, "As aes-gcm-16:256 (the default)");
    verb->add_option("--pad", options.pad, "The PAD file (/etc/latchkey/pad.toml)")
        ->type_name("FILE");
  }
}

void AddExplain(CLI::App& app, ExplainOptions& options, bool& out) {
  CLI::App* explain = app.add_subcommand(
      "explain", "Say what would be decided about a flow, and why: explain -p FILE --out tcp A P");
  explain->add_option("-p,--policy", options.policy, "The program's policy (else the system's)")
      ->type_name("FILE");
  explain->add_flag("--out", out, "We connect to ADDRESS and its PORT");
  explain->add_flag("--in", options.in, "ADDRESS connects to us and our PORT");
  explain->add_option("PROTOCOL", options.protocol, "tcp or udp")->required();
  explain->add_option("ADDRESS", options.address, "The peer's address or name")->required();
  explain->add_option("PORT", options.port, "The server's port")->required();
  explain->add_option("--user", options.user, "For this user, by name or number")
      ->type_name("USER");
  explain->add_option("--socket", options.socket, "The broker's socket")->type_name("PATH");
  explain->add_option("--system", options.system, "The system policy")->type_name("FILE");
  explain->add_option("--pad", options.pad, "The PAD, where no broker answers")->type_name("FILE");
  explain->add_option("--vici", options.vici, "strongSwan's control socket")->type_name("PATH");
  explain->add_option("--resolv-conf", options.resolv_conf, "Who is asked for names")
      ->type_name("FILE");
  explain->add_flag("--json", options.json, "Print JSON");
}

void AddDoctor(CLI::App& app, DoctorOptions& options) {
  CLI::App* doctor = app.add_subcommand("doctor", "Say what Latchkey lacks here, and what to do");
  doctor->add_option("PROG", options.program, "Whether this program can be run, too");
  doctor->add_option("--socket", options.socket, "Ask this broker alone")->type_name("PATH");
}

void AddSigning(CLI::App& app, SignOptions& options) {
  CLI::App* keygen = app.add_subcommand("keygen", "Make a pair of keys for signing policies");
  keygen->add_option("-s", options.key, "The secret key's new file")->required()->type_name("FILE");
  keygen->add_option("-p", options.public_key, "The public key's new file")
      ->required()
      ->type_name("FILE");
  keygen->add_flag("-W", options.no_password, "Do not encrypt the secret key");
  CLI::App* sign = app.add_subcommand("sign", "Sign a policy: FILE.minisig");
  sign->add_option("--key", options.key, "The secret key")->required()->type_name("FILE");
  CLI::App* verify = app.add_subcommand("verify", "Verify a policy's signature and last day");
  verify->add_option("--key", options.key, "The public key, or its file")
      ->required()
      ->type_name("KEY");
  for (CLI::App* verb : {sign, verify}) {
    verb->add_option("FILE", options.file, "The policy")->required();
  }
}

// True when the option that `word` ends with takes the next word as its value: "-p", "-vp",
// "--policy", but not "-pFILE" or "--policy=FILE".
bool TakesNext(const CLI::App& app, const std::string& word) {
  const auto takes = [&app](const std::string& name) {
    const CLI::Option* option = app.get_option_no_throw(name);
    return option != nullptr && option->get_items_expected_max() > 0;
  };
  if (word.starts_with("--")) return takes(word);
  for (size_t i = 1; i < word.size(); ++i) {
    if (takes(std::string("-") + word[i])) return i + 1 == word.size();
  }
  return false;
}

// Cuts `words`, what follows "run", into our options, which stay, and the command, from the first
// word that is no option: everything from there, options too, is the program's. A "--" before it is
// neither's. (CLI11's own prefix_command gives up at "--".)
std::vector<std::string> CutCommand(const CLI::App& run, std::vector<std::string>& words) {
  size_t start = 0;
  size_t marker = 0;
  while (start < words.size()) {
    const std::string& word = words[start];
    if (word == "--") {
      marker = 1;
      break;
    }
    if (word.size() < 2 || word.front() != '-') break;
    start += TakesNext(run, word) ? 2 : 1;
  }
  start = std::min(start, words.size());
  const auto cut = words.begin() + static_cast<std::ptrdiff_t>(start);
  std::vector<std::string> command(cut + static_cast<std::ptrdiff_t>(marker), words.end());
  words.erase(cut, words.end());
  return command;
}

bool ReadId(const std::string& text, uint64_t& id) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() && id != 0;
}

int Main(int argc, char** argv) {
  const bool runs = argc > 1 && std::string_view(argv[1]) == "run";
  const int usage = runs ? kExitLauncher : kExitUsage;
  CLI::App app{"IPsec channels (RFC 5660) for unmodified programs", "latchkey"};
  app.set_version_flag("--version", std::string("latchkey ") + kVersionText);
  app.require_subcommand(1);
  RunOptions run;
  QueryOptions query;
  CheckOptions checking;
  std::string id;
  const CLI::App* run_app = AddRun(app, run);
  AddQueries(app, query, id);
  SaOptions sa;
  AddSa(app, sa);
  ExplainOptions explain;
  bool explain_out = false;
  AddExplain(app, explain, explain_out);
  DoctorOptions doctor;
  AddDoctor(app, doctor);
  SignOptions signing;
  AddSigning(app, signing);
  CLI::App* check = app.add_subcommand("check", "Check policy files");
  check->add_option("FILE", checking.files, "Policies to check")->required();
  check->add_option("--system", checking.system, "The system policy")->type_name("FILE");
  check->add_option("--resolv-conf", checking.resolv_conf, "Who is asked for names")
      ->type_name("FILE");

  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (runs) {
    std::vector<std::string> options(words.begin() + 1, words.end());
    run.command = CutCommand(*run_app, options);
    words.resize(1);
    words.insert(words.end(), options.begin(), options.end());
  }
  std::reverse(words.begin(), words.end());  // as CLI11 wants a vector
  try {
    app.parse(words);
  } catch (const CLI::Success& wish) {  // --help, --version
    return app.exit(wish);
  } catch (const CLI::ParseError& error) {
    return Report({usage, std::string(error.what()) + " (see latchkey --help)"});
  }
  if (app.got_subcommand("run")) {
    if (run.command.empty()) {
      return Report({usage, "run: PROG is missing (see latchkey run --help)"});
    }
    return Run(run);
  }
  if (app.got_subcommand("why") && !id.empty() && !ReadId(id, query.id)) {
    return Report({usage, "why: '" + id + "' is no process and no latch id (a number from 1)"});
  }
  for (const char* verb : {"show", "break", "resume"}) {
    if (app.got_subcommand(verb) && !ReadId(id, query.id)) {
      const std::string what = std::string(verb) + ": '" + id;
      return Report({usage, what + "' is no latch id (a number from 1)"});
    }
  }
  if (app.got_subcommand("sa")) {
    sa.add = app.get_subcommand("sa")->got_subcommand("add");
    return Sa(sa);
  }
  if (app.got_subcommand("doctor")) return Doctor(doctor);
  if (app.got_subcommand("keygen")) return Keygen(signing);
  if (app.got_subcommand("sign")) return Sign(signing);
  if (app.got_subcommand("verify")) return Verify(signing);
  if (app.got_subcommand("explain")) {
    if (explain.in == explain_out) {
      return Report({usage, "explain: expected --out or --in (see latchkey explain --help)"});
    }
    return Explain(explain);
  }
  if (app.got_subcommand("why")) return Why(query);
  if (app.got_subcommand("list")) return List(query);
  if (app.got_subcommand("show")) return Show(query);
  if (app.got_subcommand("break")) return Break(query);
  if (app.got_subcommand("resume")) return Resume(query);
  if (app.got_subcommand("watch")) return Watch(query);
  return Check(checking);
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
