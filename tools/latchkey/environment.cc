#include "tools/latchkey/environment.h"

#include <string_view>

namespace latchkey::tool {
namespace {

constexpr std::string_view kShimName = "liblatchkey.so";
constexpr std::string_view kSeparators = " :";

// Takes the value off "NAME=value" when that is the name.
bool Take(std::string_view entry, std::string_view name, std::string_view& value) {
  if (!entry.starts_with(name) || !entry.substr(name.size()).starts_with('=')) return false;
  value = entry.substr(name.size() + 1);
  return true;
}

std::string WithoutShims(std::string_view preload, std::string_view shim) {
  std::string kept;
  while (!preload.empty()) {
    const size_t end = preload.find_first_of(kSeparators);
    const std::string_view element = preload.substr(0, end);
    preload.remove_prefix(end == std::string_view::npos ? preload.size() : end + 1);
    if (element.empty() || element == shim || element.substr(element.rfind('/') + 1) == kShimName) {
      continue;
    }
    kept += ':';
    kept += element;
  }
  return kept;
}

}  // namespace

std::vector<std::string> LatchedEnvironment(const char* const* inherited, const std::string& shim,
                                            const std::string& socket,
                                            std::span<const uint8_t> token) {
  std::vector<std::string> environment;
  std::string preload;
  for (; *inherited != nullptr; ++inherited) {
    std::string_view value;
    const std::string_view entry = *inherited;
    if (Take(entry, "LD_PRELOAD", value)) {
      // Of a name given twice, getenv and the loader see different ones: keep all elements.
      preload += WithoutShims(value, shim);
      continue;
    }
    if (Take(entry, "LATCHKEY_SOCKET", value) || Take(entry, "LATCHKEY_TOKEN", value) ||
        Take(entry, "LATCHKEY_POLICY", value)) {
      continue;
    }
    environment.emplace_back(entry);
  }
  environment.push_back("LD_PRELOAD=" + shim + preload);
  environment.push_back("LATCHKEY_SOCKET=" + socket);
  std::string hex;
  for (const uint8_t octet : token) {
    hex += "0123456789abcdef"[octet >> 4];
    hex += "0123456789abcdef"[octet & 15];
  }
  environment.push_back("LATCHKEY_TOKEN=" + hex);
  return environment;
}

bool CanPreload(const std::string& path) {
  return path.starts_with('/') && path.find_first_of(" :\t\n$") == std::string::npos;
}

}  // namespace latchkey::tool
