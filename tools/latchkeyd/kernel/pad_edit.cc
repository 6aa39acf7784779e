#include "tools/latchkeyd/kernel/pad_edit.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

using policy::Pad;
using policy::PadEntry;

std::unexpected<Error> Refused(const std::string& step) {
  const int number = errno;
  return Fail(Reason::kKernelRefused, step, std::strerror(number));
}

bool Same(const PadEntry& a, const PadEntry& b) {
  return a.reqid == b.reqid && a.spi == b.spi && a.spi_destination == b.spi_destination &&
         a.remote == b.remote && a.identity == b.identity;
}

// True when some SA would belong to both, under two names.
bool Contradict(const PadEntry& a, const PadEntry& b) {
  const bool same_sa = a.spi != 0 ? a.spi == b.spi && a.spi_destination == b.spi_destination
                                  : b.spi == 0 && a.reqid == b.reqid;
  if (!same_sa || a.identity == b.identity) return false;
  return a.remote.empty() || b.remote.empty() ||
         std::ranges::any_of(a.remote, [&](const Address& address) {
           return std::ranges::find(b.remote, address) != b.remote.end();
         });
}

Result<Pad> ReadPad(std::string_view text, const std::string& name) {
  auto pad = policy::ParsePad(text, name);
  if (pad) return std::move(*pad);
  return Fail(Reason::kBadPolicy, "read PAD", pad.error().front().ToString());
}

// A basic string of TOML.
std::string Quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04X", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Format(const PadEntry& entry) {
  std::string out = "[[sa]]\n";
  if (entry.spi != 0) {
    char spi[16];
    std::snprintf(spi, sizeof(spi), "0x%x", entry.spi);
    out += "spi = " + Quote(spi) + "\ndst = " + Quote(entry.spi_destination.ToString()) + "\n";
  } else {
    out += "reqid = " + std::to_string(entry.reqid) + "\n";
  }
  if (!entry.remote.empty()) {
    out += "remote = [";
    for (const Address& address : entry.remote) {
      if (out.back() != '[') out += ", ";
      out += Quote(address.ToString());
    }
    out += "]\n";
  }
  out += "id = " + Quote(entry.identity.peer_id) + "\n";
  if (!entry.identity.local_id.empty()) {
    out += "local_id = " + Quote(entry.identity.local_id) + "\n";
  }
  if (!entry.identity.auth.empty()) out += "auth = " + Quote(entry.identity.auth) + "\n";
  return out;
}

// Where each [[sa]] block begins and ends: from its header to the next header, or to the blank and
// comment lines right above that, which belong to what follows.
struct Block {
  size_t begin = 0;
  size_t end = 0;
};

std::string_view Trim(std::string_view line) {
  const size_t begin = line.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(" \t\r\n") - begin + 1);
}

std::vector<Block> FindBlocks(std::string_view text) {
  std::vector<Block> blocks;
  bool open = false;
  for (size_t at = 0; at < text.size();) {
    const size_t newline = text.find('\n', at);
    const size_t next = newline == std::string_view::npos ? text.size() : newline + 1;
    const std::string_view line = Trim(text.substr(at, next - at));
    if (line.starts_with('[')) {
      open = line.starts_with("[[sa]]");
      if (open) blocks.push_back(Block{at, next});
    } else if (open && !line.empty() && !line.starts_with('#')) {
      blocks.back().end = next;
    }
    at = next;
  }
  return blocks;
}

Result<std::string> ReadFile(const std::string& path, bool may_miss) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd && errno == ENOENT && may_miss) return std::string("latchkey = 1\n");
  if (!fd) return Refused("open " + path);
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t count = read(fd.get(), buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refused("read " + path);
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
  }
}

Result<void> WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refused("write " + path);
    text.remove_prefix(static_cast<size_t>(count));
  }
  if (fchmod(fd, 0644) != 0 || fsync(fd) != 0) return Refused("write " + path);
  return {};
}

Result<void> Replace(const std::string& path, const std::string& text, int directory) {
  std::string fresh = path + ".XXXXXX";
  const UniqueFd fd(mkostemp(fresh.data(), O_CLOEXEC));
  if (!fd) return Refused("make " + fresh);
  Result<void> done = WriteAll(fd.get(), text, fresh);
  if (done && rename(fresh.c_str(), path.c_str()) != 0) done = Refused("rename to " + path);
  if (!done) {
    unlink(fresh.c_str());
    return done;
  }
  if (fsync(directory) != 0) return Refused("sync the directory of " + path);
  return {};
}

using Change = std::function<Result<std::string>(const std::string&)>;

Result<void> Edit(const std::string& path, bool may_miss, const Change& change) {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd directory(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return Refused("open " + parent);
  // The file itself is replaced each time, so the lock is on what stays.
  if (flock(directory.get(), LOCK_EX) != 0) return Refused("lock " + parent);
  Result<std::string> before = ReadFile(path, may_miss);
  if (!before) return std::unexpected(before.error());
  Result<std::string> after = change(*before);
  if (!after) return std::unexpected(after.error());
  if (*after == *before) return {};
  return Replace(path, *after, directory.get());
}

}  // namespace

Result<std::string> WithPadEntry(std::string_view text, const std::string& name,
                                 const PadEntry& entry) {
  Result<Pad> before = ReadPad(text, name);
  if (!before) return std::unexpected(before.error());
  for (const PadEntry& other : before->entries) {
    if (Same(other, entry)) return std::string(text);
    if (Contradict(other, entry)) {
      return Fail(Reason::kConflictSa, "add to PAD",
                  name + " names \"" + other.identity.peer_id + "\" for the same SA");
    }
  }
  std::string after(text);
  if (!after.empty() && after.back() != '\n') after += '\n';
  if (!after.empty()) after += '\n';
  after += Format(entry);
  const Result<Pad> check = ReadPad(after, name);
  if (!check || check->entries.size() != before->entries.size() + 1 ||
      !Same(check->entries.back(), entry)) {
    return Fail(Reason::kBadRequest, "add to PAD",
                check ? "the entry does not read back" : check.error().value);
  }
  return after;
}

Result<std::string> WithoutPadEntry(std::string_view text, const std::string& name,
                                    const PadEntry& entry) {
  Result<Pad> before = ReadPad(text, name);
  if (!before) return std::unexpected(before.error());
  const std::vector<Block> blocks = FindBlocks(text);
  if (blocks.size() != before->entries.size()) {
    return Fail(Reason::kBadPolicy, "remove from PAD", name + " is to be edited by hand");
  }
  std::string after(text);
  size_t removed = 0;
  for (size_t i = blocks.size(); i-- > 0;) {
    if (!Same(before->entries[i], entry)) continue;
    // With it goes one blank line above, as it was added.
    size_t begin = blocks[i].begin;
    if (begin >= 2 && after[begin - 1] == '\n' && after[begin - 2] == '\n') --begin;
    after.erase(begin, blocks[i].end - begin);
    ++removed;
  }
  if (removed == 0) return Fail(Reason::kClosed, "remove from PAD", "no such entry in " + name);
  std::erase_if(before->entries, [&](const PadEntry& other) { return Same(other, entry); });
  const Result<Pad> check = ReadPad(after, name);
  if (!check || !std::ranges::equal(check->entries, before->entries, Same)) {
    return Fail(Reason::kBadPolicy, "remove from PAD", name + " is to be edited by hand");
  }
  return after;
}

Result<void> AppendPadEntry(const std::string& path, const PadEntry& entry) {
  return Edit(path, /*may_miss=*/true,
              [&](const std::string& text) { return WithPadEntry(text, path, entry); });
}

Result<void> RemovePadEntry(const std::string& path, const PadEntry& entry) {
  return Edit(path, /*may_miss=*/false,
              [&](const std::string& text) { return WithoutPadEntry(text, path, entry); });
}

}  // namespace latchkey::broker
