#include "shim/session.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>

#include "shim/handover.h"
#include "shim/held.h"
#include "shim/link.h"
#include "shim/real.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

constexpr char kDefaultSocket[] = "/run/latchkey/broker.sock";

std::atomic<const wire::Page*> page;
std::atomic<uint64_t> page_device;
std::atomic<uint64_t> page_inode;
std::atomic<int> closed_errno{EHOSTUNREACH};
bool debug;

size_t Length(const char* text) {
  size_t length = 0;
  while (text[length] != '\0') ++length;
  return length;
}

void Say(const char* text, size_t length) {
  RawSyscall(SYS_write, 2, reinterpret_cast<long>("latchkey: "), 10);
  RawSyscall(SYS_write, 2, reinterpret_cast<long>(text), static_cast<long>(length));
  RawSyscall(SYS_write, 2, reinterpret_cast<long>("\n"), 1);
}

void Say(const char* text) { Say(text, Length(text)); }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool ReadToken(const char* text, uint8_t* token) {
  for (size_t i = 0; i < wire::kTokenSize; ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = high < 0 ? -1 : HexDigit(text[2 * i + 1]);
    if (low < 0) return false;
    token[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return text[2 * wire::kTokenSize] == '\0';
}

// Hands the token on to children that this program starts. `text`: 2 * kTokenSize + 1 octets.
void PublishToken(const uint8_t* token, char* text) {
  for (size_t i = 0; i < wire::kTokenSize; ++i) {
    text[2 * i] = "0123456789abcdef"[token[i] >> 4];
    text[2 * i + 1] = "0123456789abcdef"[token[i] & 15];
  }
  text[2 * wire::kTokenSize] = '\0';
  setenv("LATCHKEY_TOKEN", text, 1);
}

void CopyText(char* to, size_t room, const char* from) {
  size_t i = 0;
  for (; i + 1 < room && from[i] != '\0'; ++i) to[i] = from[i];
  to[i] = '\0';
}

long OpenFile(const char* path) {
  return RawSyscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC);
}

// Opens the signature of the policy at `path`; -1 when it has none, -2 when it cannot be read.
long OpenSignature(const char* path) {
  constexpr char kEnding[] = ".minisig";
  char name[PATH_MAX];
  const size_t length = Length(path);
  if (length + sizeof(kEnding) > sizeof(name)) return -2;
  CopyText(name, sizeof(name), path);
  CopyText(name + length, sizeof(name) - length, kEnding);
  const long fd = OpenFile(name);
  if (fd == -ENOENT) return -1;
  return fd < 0 ? -2 : fd;
}

// Makes a session: the program was started by hand. `policy` null: none. 0 or the errno. `token`
// becomes the session's, in hexadecimal.
int OpenSession(const char* policy, char* token) {
  wire::Open request{};
  request.header = wire::MakeHeader(wire::Type::kOpen, NextSerial());
  const long length = RawSyscall(SYS_readlink, reinterpret_cast<long>("/proc/self/exe"),
                                 reinterpret_cast<long>(request.program), wire::kPathSize - 1);
  if (length < 0) request.program[0] = '\0';
  int files[2] = {-1, -1};
  int count = 0;
  if (policy == nullptr) {
    request.flags = wire::kOpenNoPolicy;
  } else {
    CopyText(request.policy, sizeof(request.policy), policy);
    const long text = OpenFile(policy);
    const long signature = OpenSignature(policy);
    if (text >= 0) files[count++] = static_cast<int>(text);
    if (signature >= 0) {
      files[count++] = static_cast<int>(signature);
      request.flags |= wire::kOpenSigned;
    }
    if (text < 0 || signature == -2) {
      Say("the policy named by LATCHKEY_POLICY, or its signature, cannot be read; protected flows "
          "are refused");
      for (int i = 0; i < count; ++i) RawSyscall(SYS_close, files[i]);
      return EACCES;
    }
  }
  wire::Received received;
  int error = AskApart(&request, sizeof(request), files, count, wire::Type::kOpened, received);
  for (int i = 0; i < count; ++i) RawSyscall(SYS_close, files[i]);
  if (error != 0) return EHOSTUNREACH;
  const auto& answer = received.As<wire::Opened>();
  if (answer.reason != wire::Reason::kNone) {
    const size_t text = answer.text[wire::kTextSize - 1] == '\0' ? Length(answer.text) : 0;
    Say(answer.text, text);
    error = wire::ReasonErrno(answer.reason);
  } else {
    SetToken(answer.token);
    PublishToken(answer.token, token);
  }
  wire::CloseDescriptors(received);
  return error;
}

// Has what this program starts find its way here, too: by the shim's name as LD_PRELOAD gave it,
// made absolute, since the program may change its folder.
void HandOver(const char* socket, const char* token, const char* policy) {
  Dl_info self{};
  char resolved[PATH_MAX];
  if (dladdr(reinterpret_cast<const void*>(&CurrentPage), &self) == 0) return;
  const char* library = self.dli_fname;
  if (library[0] != '/') library = realpath(library, resolved);
  if (library != nullptr) SetHandover(library, socket, token, policy);
}

// 102: before the constructors of the program's own libraries, as far as the loader's order allows.
__attribute__((constructor(102))) void Start() {
  const int saved = errno;
  ResolveReal();
  OwnLinks();
  OwnHints();
  const bool trusted = getauxval(AT_SECURE) == 0;
  const char* path = trusted ? getenv("LATCHKEY_SOCKET") : nullptr;
  const char* token_text = trusted ? getenv("LATCHKEY_TOKEN") : nullptr;
  const char* policy = trusted ? getenv("LATCHKEY_POLICY") : nullptr;
  debug = trusted && getenv("LATCHKEY_DEBUG") != nullptr;
  SetBroker(path != nullptr && path[0] != '\0' ? path : kDefaultSocket);
  uint8_t token[wire::kTokenSize];
  char made[2 * wire::kTokenSize + 1] = "";
  int error = 0;
  if (token_text != nullptr && ReadToken(token_text, token)) {
    SetToken(token);
  } else {
    error = OpenSession(policy != nullptr && policy[0] != '\0' ? policy : nullptr, made);
    token_text = made[0] != '\0' ? made : nullptr;
  }
  if (trusted) HandOver(path, token_text, policy);
  if (error == 0) error = Attach();
  if (error != 0) {
    closed_errno.store(error == EACCES ? EACCES : EHOSTUNREACH);
    if (debug) Say("no session with a broker; protected flows are refused");
  }
  errno = saved;
}

}  // namespace

const wire::Page* CurrentPage() { return page.load(std::memory_order_acquire); }

int MapPage(int fd) {
  struct stat status {};
  if (RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) < 0) return EPROTO;
  if (status.st_size < static_cast<off_t>(sizeof(wire::Page))) return EPROTO;
  // A broker that was restarted hands out another page; the old one would never tell of trouble.
  if (CurrentPage() != nullptr && page_device.load() == status.st_dev &&
      page_inode.load() == status.st_ino) {
    return 0;
  }
  const long mapped = RawSyscall(SYS_mmap, 0, sizeof(wire::Page), PROT_READ, MAP_SHARED, fd, 0);
  if (mapped < 0 && mapped > -4096) return ENOMEM;
  const auto* fresh = reinterpret_cast<const wire::Page*>(mapped);
  if (fresh->magic != wire::kPageMagic || fresh->version != wire::kVersion) {
    RawSyscall(SYS_munmap, mapped, sizeof(wire::Page));
    return EPROTO;
  }
  page_device.store(status.st_dev);
  page_inode.store(status.st_ino);
  // The one before stays mapped: another thread may be reading it.
  page.store(fresh, std::memory_order_release);
  return 0;
}

int ClosedErrno() { return closed_errno.load(std::memory_order_relaxed); }

bool NothingToDo() {
  const wire::Page* current = CurrentPage();
  return current != nullptr &&
         (current->flags.load(std::memory_order_relaxed) & wire::kPageNoRules) != 0;
}

}  // namespace latchkey::shim
