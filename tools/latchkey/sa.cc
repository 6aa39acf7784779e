#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tools/latchkey/verbs.h"
#include "tools/latchkeyd/kernel/pad_edit.h"
#include "tools/latchkeyd/kernel/sa_install.h"
#include "tools/latchkeyd/kernel/secret.h"

namespace latchkey::tool {
namespace {

constexpr char kDefaultPad[] = "/etc/latchkey/pad.toml";
constexpr char kDefaultPadFolder[] = "/etc/latchkey";

int ReportError(const Error& error) { return Report({kExitNo, error.ToString()}); }

// True when the file holds the very entry already: what others rely on is not ours to take out.
bool HoldsEntry(const std::string& pad, const policy::PadEntry& entry) {
  std::ifstream file(pad);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto with = broker::WithPadEntry(text, pad, entry);
  return with && *with == text;
}

int Add(const std::string& pad, const policy::PadEntry& entry, std::span<const uint8_t> secret,
        const broker::ManualSa& sa) {
  if (pad == kDefaultPad && mkdir(kDefaultPadFolder, 0755) != 0 && errno != EEXIST) {
    return Report({kExitNo, std::string(kDefaultPadFolder) + ": " + std::strerror(errno)});
  }
  // The PAD first: an SA that is there before anybody is named for it would be nobody's.
  const bool held = HoldsEntry(pad, entry);
  if (auto added = broker::AppendPadEntry(pad, entry); !added) return ReportError(added.error());
  auto installed = broker::InstallPair(secret, sa);
  if (installed) return kExitYes;
  const int exit = ReportError(installed.error());
  if (!held) {
    if (auto removed = broker::RemovePadEntry(pad, entry); !removed) ReportError(removed.error());
  }
  return exit;
}

int Delete(const std::string& pad, const policy::PadEntry& entry, std::span<const uint8_t> secret,
           const broker::ManualSa& sa) {
  const auto deleted = broker::DeletePair(secret, sa);
  int exit = deleted ? kExitYes : ReportError(deleted.error());
  // While an SA may still be there, its entry stays.
  if (!deleted && deleted.error().reason != Reason::kNoSa) return exit;
  const auto removed = broker::RemovePadEntry(pad, entry);
  if (!removed && removed.error().reason != Reason::kClosed) exit = ReportError(removed.error());
  return exit;
}

}  // namespace

int Sa(const SaOptions& options) {
  broker::ManualSa sa;
  const auto local = Address::Parse(options.local);
  const auto remote = Address::Parse(options.remote);
  for (const auto& [text, address] : {std::pair(options.local, local), {options.remote, remote}}) {
    if (!address) return Report({kExitUsage, "sa: '" + text + "' is no IP address"});
  }
  if (options.reqid == 0) return Report({kExitUsage, "sa: a reqid is a number from 1"});
  sa.local = *local;
  sa.remote = *remote;
  sa.reqid = options.reqid;
  if (!options.suite.empty()) sa.suite = options.suite;
  const auto secret = broker::ReadSecretFile(options.secret_file);
  if (!secret) return ReportError(secret.error());

  policy::PadEntry entry;
  entry.reqid = options.reqid;
  entry.remote = {*remote};
  entry.identity = {options.peer_id, options.id, "manual"};
  const std::string pad = options.pad.empty() ? kDefaultPad : options.pad;
  return options.add ? Add(pad, entry, secret->octets(), sa)
                     : Delete(pad, entry, secret->octets(), sa);
}

}  // namespace latchkey::tool
