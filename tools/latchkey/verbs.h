// The verbs of `latchkey`, one file each. Each prints what it has to say and returns the exit code.
#ifndef TOOLS_LATCHKEY_VERBS_H_
#define TOOLS_LATCHKEY_VERBS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/latchkey/refusal.h"

namespace latchkey::tool {

struct RunOptions {
  std::string policy;  // "": found by the program's path
  std::string socket;  // "": LATCHKEY_SOCKET, else the default one or a private broker
  bool keep_net_caps = false;
  bool private_broker = false;
  bool fence = false;     // not without one
  bool no_fence = false;  // none; neither: as far as there can be one
  bool verbose = false;
  std::vector<std::string> command;  // the program and its arguments, not empty
};

// Opens a session and becomes the program; returns only when that fails (125, 126, 127).
int Run(const RunOptions& options);

struct QueryOptions {
  std::string socket;  // "": every broker of the network namespace
  bool json = false;
  uint64_t id = 0;   // of Show, Break, Resume; of Why, a latch's id or a process's
  bool spd = false;  // of List: the SPD's entries
};

int List(const QueryOptions& options);
int Show(const QueryOptions& options);
// Prints the last refusals and breaks, the newest first; of one process or latch when `id` is set.
int Why(const QueryOptions& options);

// Breaks a latch; ends such a break of one that suspends.
int Break(const QueryOptions& options);
int Resume(const QueryOptions& options);
// Prints a line for every change of a latch, until it is interrupted (kExitYes), nobody reads it
// any more (kExitYes) or the last broker ends (kExitNoBroker).
int Watch(const QueryOptions& options);

struct ExplainOptions {
  std::string policy;  // "": none, the system's alone
  bool in = false;     // a peer connects to us; else we connect
  std::string protocol;
  std::string address;  // the peer's, or a host name
  uint16_t port = 0;    // the server's
  std::string user;     // "": who runs this
  std::string socket;
  std::string system = "/etc/latchkey/system.toml";
  std::string pad = "/etc/latchkey/pad.toml";
  std::string vici = "/run/charon.vici";
  std::string resolv_conf = "/etc/resolv.conf";  // who the C library asks for names
  bool json = false;
};

// Says what would be decided about a flow, and why; kExitNo for one that would be refused.
int Explain(const ExplainOptions& options);

struct CheckOptions {
  std::vector<std::string> files;
  std::string system = "/etc/latchkey/system.toml";  // by which what is granted is judged
  std::string resolv_conf = "/etc/resolv.conf";
};

// Parses each file: "FILE: ok" on standard output, or its errors on standard error.
int Check(const CheckOptions& options);

struct DoctorOptions {
  std::string program;  // "": none is looked at
  std::string socket;   // "": as in QueryOptions
};

// Looks at what Latchkey needs here, a line each; kExitNo when something is BAD.
int Doctor(const DoctorOptions& options);

struct SignOptions {
  std::string key;  // a secret key's file; of Verify: a public key or its file
  std::string public_key;
  bool no_password = false;
  std::string file;
};

// Makes a pair of keys in two new files, in minisign's format.
int Keygen(const SignOptions& options);
// Signs a file: FILE.minisig.
int Sign(const SignOptions& options);
// Verifies FILE.minisig, and that a policy's last day is not over.
int Verify(const SignOptions& options);

struct SaOptions {
  bool add = false;  // else delete
  std::string secret_file;
  std::string local;
  std::string remote;
  uint32_t reqid = 0;
  std::string id;       // our own
  std::string peer_id;  // the peer's
  std::string suite;    // "": the default, aes-gcm-16:256
  std::string pad;      // "": /etc/latchkey/pad.toml
};

// Installs or deletes a pair of manually keyed SAs and the PAD entry that says whose they are.
int Sa(const SaOptions& options);

// Prints the refusal on standard error, "latchkey: " before each of its lines; returns its code.
int Report(const Refusal& refusal);

// Writes `text` to standard output; returns kExitYes, or kExitNo when it did not all get there.
int Print(std::string_view text);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_VERBS_H_
