#include "shim/handover.h"

#include <limits.h>

#include <cstdint>

#include "shim/readable.h"
#include "shim/wire/codec.h"

namespace latchkey::shim {
namespace {

// It is put on the stack of whoever calls exec, which need not be a large one.
constexpr size_t kMaxEntries = 8192;
constexpr size_t kMaxPreload = 16384;

constexpr char kPreloadName[] = "LD_PRELOAD=";
constexpr char kSocketName[] = "LATCHKEY_SOCKET=";
constexpr char kTokenName[] = "LATCHKEY_TOKEN=";
constexpr char kPolicyName[] = "LATCHKEY_POLICY=";
constexpr char kShimName[] = "liblatchkey.so";

// NAME=VALUE, empty where there is nothing to hand over.
char own_library[PATH_MAX];
char own_socket[sizeof(kSocketName) + 128];
char own_token[sizeof(kTokenName) + 2 * wire::kTokenSize];
char own_policy[sizeof(kPolicyName) + PATH_MAX];

// Knows whether the octets that it is asked about, mostly one after the other, can be read.
class Reader {
 public:
  bool MayRead(const void* at) {
    const uintptr_t page = reinterpret_cast<uintptr_t>(at) / 4096;
    if (page != page_) {
      if (!IsReadable(at, 1)) {
        failed_ = true;
        return false;
      }
      page_ = page;
    }
    return true;
  }

  // Returns the octet, an end where there is none to be read.
  char At(const char* text) { return MayRead(text) ? *text : '\0'; }

  bool failed() const { return failed_; }

 private:
  uintptr_t page_ = UINTPTR_MAX;  // no page has that number
  bool failed_ = false;
};

// Returns what stands behind "NAME=", null when the entry is of another name.
const char* ValueOf(const char* entry, const char* name, Reader& reader) {
  for (; *name != '\0'; ++name, ++entry) {
    if (reader.At(entry) != *name) return nullptr;
  }
  return entry;
}

size_t Length(const char* text, Reader& reader) {
  size_t length = 0;
  while (reader.At(text + length) != '\0') ++length;
  return length;
}

bool IsToken(const char* text, Reader& reader) {
  for (size_t i = 0; i < 2 * wire::kTokenSize; ++i) {
    const char c = reader.At(text + i);
    if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) return false;
  }
  return reader.At(text + 2 * wire::kTokenSize) == '\0';
}

bool Separates(char c) { return c == ' ' || c == ':'; }

bool Same(const char* text, size_t length, const char* name) {
  for (size_t i = 0; i < length; ++i) {
    if (text[i] != name[i] || name[i] == '\0') return false;
  }
  return name[length] == '\0';
}

// Calls `each` with every element of LD_PRELOAD's value.
template <typename Each>
void ForElements(const char* value, size_t length, Each each) {
  for (size_t begin = 0; begin < length;) {
    size_t end = begin;
    while (end < length && !Separates(value[end])) ++end;
    if (end > begin) each(value + begin, end - begin);
    begin = end + 1;
  }
}

bool IsShim(const char* element, size_t length) {
  size_t name = length;
  while (name > 0 && element[name - 1] != '/') --name;
  return Same(element + name, length - name, kShimName) || Same(element, length, own_library);
}

enum class Kind { kOther, kPreload, kSocket, kToken, kPolicy };

// Says what an entry is to us; kOther too when it is not ours to hand over.
Kind KindOf(const char* entry, Reader& reader, const char*& value) {
  if (reader.At(entry) != 'L') return Kind::kOther;
  value = ValueOf(entry, kPreloadName, reader);
  if (value != nullptr) return Kind::kPreload;
  if (own_socket[0] != '\0') value = ValueOf(entry, kSocketName, reader);
  if (value != nullptr) return Kind::kSocket;
  if (own_token[0] != '\0') value = ValueOf(entry, kTokenName, reader);
  if (value != nullptr) return Kind::kToken;
  if (own_policy[0] != '\0') value = ValueOf(entry, kPolicyName, reader);
  return value != nullptr ? Kind::kPolicy : Kind::kOther;
}

// True when an entry other than LD_PRELOAD may stay as the program wrote it.
bool MayStay(Kind kind, const char* value, Reader& reader) {
  if (kind == Kind::kToken) return IsToken(value, reader);
  return kind == Kind::kOther || reader.At(value) != '\0';
}

bool CanPreload(const char* path) {
  if (path[0] != '/') return false;
  for (; *path != '\0'; ++path) {
    if (Separates(*path) || *path == '$' || *path == '\t' || *path == '\n') return false;
  }
  return true;
}

// Writes text that was measured before; never past `end`, should another thread change it now.
char* Append(char* to, const char* end, const char* text, size_t length) {
  for (size_t i = 0; i < length && to < end; ++i) *to++ = text[i];
  return to;
}

void Set(char* to, size_t room, const char* name, const char* value) {
  to[0] = '\0';
  if (value == nullptr || value[0] == '\0') return;
  char* at = to;
  const char* const last = to + room - 1;
  while (*name != '\0' && at < last) *at++ = *name++;
  while (*value != '\0' && at < last) *at++ = *value++;
  *at = '\0';
}

}  // namespace

void SetHandover(const char* library, const char* socket, const char* token, const char* policy) {
  Set(own_library, sizeof(own_library), "", CanPreload(library) ? library : nullptr);
  Set(own_socket, sizeof(own_socket), kSocketName, socket);
  Set(own_token, sizeof(own_token), kTokenName, token);
  Set(own_policy, sizeof(own_policy), kPolicyName, token == nullptr ? policy : nullptr);
}

Inventory TakeInventory(char* const* environment) {
  Inventory found;
  if (own_library[0] == '\0') return found;
  Reader array;
  Reader text;
  int preloads = 0;
  bool shim = false;
  bool bad = false;
  bool socket = own_socket[0] == '\0';
  bool token = own_token[0] == '\0';
  bool policy = own_policy[0] == '\0';
  size_t preload = sizeof(kPreloadName) + Length(own_library, text);
  for (char* const* at = environment; at != nullptr; ++at, ++found.entries) {
    if (!array.MayRead(static_cast<const void*>(at))) return found;
    if (*at == nullptr) break;
    const char* value = nullptr;
    const Kind kind = KindOf(*at, text, value);
    if (kind == Kind::kPreload) {
      const size_t length = Length(value, text);
      if (text.failed()) return found;
      ++preloads;
      preload += 1 + length;
      ForElements(value, length, [&shim](const char* element, size_t size) {
        shim = shim || Same(element, size, own_library);
      });
    } else if (kind != Kind::kOther) {
      const bool good = MayStay(kind, value, text);
      bad = bad || !good;
      socket = socket || (good && kind == Kind::kSocket);
      token = token || (good && kind == Kind::kToken);
      policy = policy || (good && kind == Kind::kPolicy);
    }
    if (text.failed()) return found;
  }
  found.whole = shim && preloads == 1 && !bad && socket && token && policy;
  found.large = found.entries > kMaxEntries || preload > kMaxPreload;
  found.size = (found.entries + 5) * sizeof(char*) + preload;
  return found;
}

char* const* Complete(char* const* environment, const Inventory& inventory, char* room) {
  Reader reader;
  auto** const made = reinterpret_cast<char**>(room);
  char** next = made;
  char* preload = room + (inventory.entries + 5) * sizeof(char*);
  const char* const last = room + inventory.size - 1;
  char* end = Append(preload, last, kPreloadName, sizeof(kPreloadName) - 1);
  end = Append(end, last, own_library, Length(own_library, reader));
  bool socket = own_socket[0] == '\0';
  bool token = own_token[0] == '\0';
  bool policy = own_policy[0] == '\0';
  *next++ = preload;
  for (size_t i = 0; i < inventory.entries && environment[i] != nullptr; ++i) {
    const char* value = nullptr;
    const Kind kind = KindOf(environment[i], reader, value);
    if (kind == Kind::kPreload) {
      ForElements(value, Length(value, reader), [&](const char* element, size_t length) {
        if (IsShim(element, length)) return;
        end = Append(end, last, ":", 1);
        end = Append(end, last, element, length);
      });
      continue;
    }
    if (!MayStay(kind, value, reader)) continue;
    socket = socket || kind == Kind::kSocket;
    token = token || kind == Kind::kToken;
    policy = policy || kind == Kind::kPolicy;
    *next++ = environment[i];
  }
  *end = '\0';
  if (!socket) *next++ = own_socket;
  if (!token) *next++ = own_token;
  if (!policy) *next++ = own_policy;
  *next = nullptr;
  return made;
}

}  // namespace latchkey::shim
