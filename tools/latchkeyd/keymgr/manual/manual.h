// The manual key manager: who is behind manually keyed SAs, as /etc/latchkey/pad.toml says.
//
// The file decides who a peer is, so it must be root's and nobody else's to write. Whatever is
// wrong with it, nobody is known: no SA is then anybody's, and nothing new is latched.
#ifndef TOOLS_LATCHKEYD_KEYMGR_MANUAL_MANUAL_H_
#define TOOLS_LATCHKEYD_KEYMGR_MANUAL_MANUAL_H_

#include <sys/stat.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "policy/model/error.h"
#include "policy/pad.h"
#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker {

class ManualKeyManager : public KeyManager {
 public:
  // `path`: the PAD file; it need not exist. `warn` hears once of each thing that is found wrong.
  // `owner`: the uid the file must belong to.
  ManualKeyManager(std::string path, std::function<void(const std::string&)> warn,
                   uint32_t owner = 0);

  // Reads the file again when it has changed. `static_reqid` when an entry by reqid names the
  // peer, and every entry under that reqid names the same one.
  Identified Identify(const Sa& sa, bool inbound) override;
  // There is nobody to negotiate with: no-sa.
  Result<uint64_t> Acquire(const AcquireRequest& request) override;
  void Abandon(uint64_t) override {}
  void Release(const Flow&) override {}
  std::vector<KeyEvent> TakeEvents() override { return {}; }

  // Reads the file again if it has changed. True when what it says may have changed with it: then
  // SAs must be identified again.
  bool Refresh();

  // What is wrong with the file, as lines of text; empty when nothing is. No file is not wrong.
  const std::string& error() const { return error_; }

 private:
  // What tells one state of the file from another.
  struct Stamp {
    uint64_t device = 0, inode = 0;
    int64_t size = -1;
    int64_t modified_ns = 0, changed_ns = 0;

    bool operator==(const Stamp&) const = default;
  };
  static Stamp StampOf(const struct stat& status);
  Result<policy::Pad> Read(Stamp* stamp) const;

  const std::string path_;
  const std::function<void(const std::string&)> warn_;
  const uint32_t owner_;
  std::optional<Stamp> read_;  // of the file as read; nothing: to be read
  policy::Pad pad_;
  std::string error_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KEYMGR_MANUAL_MANUAL_H_
