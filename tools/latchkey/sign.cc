// keygen, sign, verify: signatures of policies as minisign makes them.

#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "policy/parse.h"
#include "policy/signature.h"
#include "tools/latchkey/verbs.h"
#include "tools/latchkeyd/kernel/secret.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

constexpr size_t kMost = size_t{1} << 20;
constexpr size_t kLongestPassword = 1024;

int Failed(const std::string& text) { return Report({kExitNo, text}); }

// Opens a file that is to be read whole, and tells how long it is.
std::optional<std::string> OpenFile(const std::string& name, UniqueFd& file, size_t& size) {
  file = UniqueFd(open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0) return name + ": " + std::strerror(errno);
  if (!S_ISREG(status.st_mode)) return name + ": not a regular file";
  if (status.st_size > static_cast<off_t>(kMost)) return name + ": larger than 1 MiB";
  size = static_cast<size_t>(status.st_size);
  return std::nullopt;
}

std::optional<std::string> ReadOctets(const std::string& name, int file, std::span<char> octets) {
  const ssize_t count = pread(file, octets.data(), octets.size(), 0);
  if (count != static_cast<ssize_t>(octets.size())) return name + ": cannot be read";
  return std::nullopt;
}

std::optional<std::string> ReadFile(const std::string& name, std::string& text) {
  UniqueFd file;
  size_t size = 0;
  if (auto wrong = OpenFile(name, file, size)) return wrong;
  text.resize(size);
  return ReadOctets(name, file.get(), text);
}

// A secret key's file, which must not lie about in memory.
std::optional<std::string> ReadFile(const std::string& name, policy::GuardedText& text) {
  UniqueFd file;
  size_t size = 0;
  if (auto wrong = OpenFile(name, file, size)) return wrong;
  Result<policy::GuardedText> guarded = policy::GuardedText::Make(size);
  if (!guarded) return guarded.error().ToString();
  text = std::move(*guarded);
  return ReadOctets(name, file.get(), text.octets());
}

// Writes a new file; one that is there is left alone, and half of one is taken away again.
std::optional<std::string> WriteNew(const std::string& name, std::string_view text, mode_t mode) {
  const UniqueFd file(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file) return name + ": " + std::strerror(errno);
  if (write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      fsync(file.get()) == 0) {
    return std::nullopt;
  }
  std::string why = name + ": " + std::strerror(errno);
  unlink(name.c_str());
  return why;
}

// Reads a line from the terminal without showing it, or from standard input where that is none.
std::optional<std::string> ReadPassword(const char* prompt, broker::Secret& secret,
                                        size_t& length) {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  termios before{};
  if (terminal) {
    std::fprintf(stderr, "%s: ", prompt);
    tcgetattr(STDIN_FILENO, &before);
    termios quiet = before;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
  }
  length = 0;
  bool whole = false;
  uint8_t octet = 0;
  while (!whole && length < secret.octets().size() && read(STDIN_FILENO, &octet, 1) == 1) {
    whole = octet == '\n';
    if (!whole) secret.octets()[length++] = octet;
  }
  explicit_bzero(&octet, sizeof(octet));
  if (terminal) {
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    std::fputc('\n', stderr);
  }
  if (length == secret.octets().size()) return "the password is longer than 1023 octets";
  if (length == 0) return "no password (-W makes a key without one)";
  return std::nullopt;
}

std::string_view TextOf(const broker::Secret& secret, size_t length) {
  return {reinterpret_cast<const char*>(secret.octets().data()), length};
}

std::string BaseName(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

int Keygen(const SignOptions& options) {
  Result<broker::Secret> password = broker::Secret::Make(kLongestPassword);
  if (!password) return Failed(password.error().ToString());
  size_t length = 0;
  if (!options.no_password) {
    Result<broker::Secret> again = broker::Secret::Make(kLongestPassword);
    size_t again_length = 0;
    if (!again) return Failed(again.error().ToString());
    if (const auto wrong = ReadPassword("Password", *password, length)) return Failed(*wrong);
    if (isatty(STDIN_FILENO) != 0) {
      if (const auto wrong = ReadPassword("The same again", *again, again_length)) {
        return Failed(*wrong);
      }
      if (TextOf(*password, length) != TextOf(*again, again_length)) {
        return Failed("the passwords differ");
      }
    }
  }
  Result<policy::SecretKey> key = policy::SecretKey::Generate();
  if (!key) return Failed(key.error().ToString());
  const Result<policy::GuardedText> secret =
      key->ToFile(options.no_password ? std::nullopt : std::optional(TextOf(*password, length)));
  if (!secret) return Failed(secret.error().ToString());
  if (const auto wrong = WriteNew(options.public_key, key->Public().ToFile(), 0644)) {
    return Failed(*wrong);
  }
  if (const auto wrong = WriteNew(options.key, secret->view(), 0600)) {
    unlink(options.public_key.c_str());
    return Failed(*wrong);
  }
  return Print("public key: " + key->Public().ToBase64() + "\n");
}

int Sign(const SignOptions& options) {
  Result<policy::GuardedText> file = policy::GuardedText::Make(0);
  std::string text;
  if (!file) return Failed(file.error().ToString());
  if (const auto wrong = ReadFile(options.key, *file)) return Failed(*wrong);
  if (const auto wrong = ReadFile(options.file, text)) return Failed(*wrong);
  Result<broker::Secret> password = broker::Secret::Make(kLongestPassword);
  if (!password) return Failed(password.error().ToString());
  size_t length = 0;
  if (policy::SecretKey::NeedsPassword(file->view())) {
    if (const auto wrong = ReadPassword("Password", *password, length)) return Failed(*wrong);
  }
  Result<policy::SecretKey> key =
      policy::SecretKey::FromFile(file->view(), TextOf(*password, length));
  if (!key) return Failed(options.key + ": " + key.error().ToString());
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  Result<std::string> signature =
      key->Sign(text, "timestamp:" + std::to_string(now.count()) +
                          "\tfile:" + BaseName(options.file) + "\thashed");
  if (!signature) return Failed(signature.error().ToString());
  // Another signature takes the old one's place whole, or not at all.
  const std::string name = options.file + ".minisig";
  const std::string fresh = name + ".new";
  unlink(fresh.c_str());
  if (const auto wrong = WriteNew(fresh, *signature, 0644)) return Failed(*wrong);
  if (rename(fresh.c_str(), name.c_str()) != 0) {
    const std::string why = name + ": " + std::strerror(errno);
    unlink(fresh.c_str());
    return Failed(why);
  }
  return Print(name + ": signed with key " + key->Public().Name() + "\n");
}

int Verify(const SignOptions& options) {
  std::optional<policy::PublicKey> key = policy::PublicKey::FromBase64(options.key);
  if (!key) {
    std::string text;
    if (const auto wrong = ReadFile(options.key, text)) return Failed(*wrong);
    Result<policy::PublicKey> read = policy::PublicKey::FromFile(text);
    if (!read) return Failed(options.key + ": " + read.error().ToString());
    key = *read;
  }
  std::string text;
  std::string signature_text;
  if (const auto wrong = ReadFile(options.file, text)) return Failed(*wrong);
  if (const auto wrong = ReadFile(options.file + ".minisig", signature_text)) {
    return Failed(*wrong);
  }
  const Result<policy::Signature> signature = policy::ReadSignature(signature_text);
  if (!signature) return Failed(options.file + ".minisig: " + signature.error().ToString());
  if (const Result<void> good = policy::Verify(text, *signature, *key); !good) {
    return Failed(options.file + ": " + good.error().ToString());
  }
  // Only what is no policy at all has no last day: the rest of it is not asked about here.
  if (const auto policy = policy::Parse(text, options.file); policy && policy->not_after) {
    const auto today = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
    if (today > std::chrono::sys_days(*policy->not_after)) {
      return Failed(options.file + ": its last day (not_after) is over (" +
                    wire::ReasonWord(Reason::kPolicyExpired) + ")");
    }
  }
  return Print(options.file + ": good signature by key " + key->Name() + ": " +
               signature->trusted_comment + "\n");
}

}  // namespace latchkey::tool
