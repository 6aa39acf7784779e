#include "tools/latchkeyd/kernel/datagram_maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "tools/latchkeyd/kernel/datagram_layout.h"

namespace latchkey::broker {
namespace {

constexpr const char* kProgram = "latchkey_filter";
constexpr const char* kFileSystem = "/sys/fs/bpf";  // where systemd, too, mounts it

alignas(8) constexpr uint8_t kObject[] = {
#include "tools/latchkeyd/kernel/datagram_program.inc"
};

struct MapName {
  const char* name;
  UniqueFd DatagramMaps::*fd;
};

constexpr std::array<MapName, 7> kMaps = {{{"settings", &DatagramMaps::settings},
                                           {"held", &DatagramMaps::held},
                                           {"admitted", &DatagramMaps::admitted},
                                           {"exact", &DatagramMaps::exact},
                                           {"regions", &DatagramMaps::regions},
                                           {"dropped", &DatagramMaps::dropped},
                                           {"noted", &DatagramMaps::noted}}};

struct CloseObject {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using Object = std::unique_ptr<bpf_object, CloseObject>;

int SayNothing(libbpf_print_level, const char*, va_list) { return 0; }

std::unexpected<Error> Unsupported(const char* step, int number) {
  std::string why = std::strerror(number);
  if (number == EPERM) why = "not without CAP_BPF";
  if (number == ENOSYS) why = "this kernel has no eBPF";
  return Fail(Reason::kUnsupported, step, why);
}

Result<Object> OpenObject() {
  libbpf_set_print(SayNothing);
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "latchkey");
  Object object(bpf_object__open_mem(kObject, sizeof(kObject), &options));
  if (!object) return Unsupported("open datagram filter", errno);
  return object;
}

// A pinned map, if it is as the program's own would be.
UniqueFd OpenPinned(const std::string& path, const bpf_map* like) {
  UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd) return {};
  bpf_map_info info{};
  uint32_t length = sizeof(info);
  if (bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0) return {};
  if (info.type != static_cast<uint32_t>(bpf_map__type(like)) ||
      info.key_size != bpf_map__key_size(like) || info.value_size != bpf_map__value_size(like) ||
      info.max_entries != bpf_map__max_entries(like) ||
      info.map_flags != bpf_map__map_flags(like) ||
      std::strncmp(info.name, bpf_map__name(like), sizeof(info.name)) != 0) {
    return {};
  }
  return fd;
}

// True for a folder of ours that nobody else can write to. A link is none.
bool IsOwn(const std::string& folder) {
  struct stat status {};
  return lstat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == geteuid() && (status.st_mode & 022) == 0;
}

bool IsBpfFileSystem(const char* path) {
  struct statfs status {};
  return statfs(path, &status) == 0 && status.f_type == BPF_FS_MAGIC;
}

std::string MakeFolder(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return folder + " cannot be made: " + std::strerror(errno);
  }
  if (!IsOwn(folder)) return folder + " is not ours alone";
  return {};
}

// Makes `base` and the folder in it for our network namespace. Returns why it cannot.
std::string MakeFolders(const std::string& base, std::string* folder) {
  if (base.starts_with(kFileSystem) && !IsBpfFileSystem(kFileSystem) &&
      mount("bpf", kFileSystem, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return std::string("no BPF file system at ") + kFileSystem + ": " + std::strerror(errno);
  }
  struct stat netns {};
  if (stat("/proc/thread-self/ns/net", &netns) != 0) return "no /proc";
  if (std::string why = MakeFolder(base); !why.empty()) return why;
  if (!IsBpfFileSystem(base.c_str())) return base + " is in no BPF file system";
  // Another layout is another folder: what it holds is not ours to understand.
  *folder = base + "/" + std::to_string(LATCHKEY_LAYOUT) + "-" + std::to_string(netns.st_ino);
  return MakeFolder(*folder);
}

std::string Pinned(const std::string& folder, const char* name) { return folder + "/" + name; }

// All or none.
bool Reuse(bpf_object* object, const std::string& folder) {
  std::array<UniqueFd, kMaps.size()> found;
  for (size_t i = 0; i < kMaps.size(); ++i) {
    const bpf_map* map = bpf_object__find_map_by_name(object, kMaps[i].name);
    if (map == nullptr) return false;
    found[i] = OpenPinned(Pinned(folder, kMaps[i].name), map);
    if (!found[i]) return false;
  }
  for (size_t i = 0; i < kMaps.size(); ++i) {
    bpf_map* map = bpf_object__find_map_by_name(object, kMaps[i].name);
    if (bpf_map__reuse_fd(map, found[i].get()) != 0) return false;
  }
  return true;
}

UniqueFd Duplicate(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

Result<DatagramMaps> Load(Object object) {
  if (bpf_object__load(object.get()) != 0) return Unsupported("load datagram filter", errno);
  DatagramMaps maps;
  const bpf_program* program = bpf_object__find_program_by_name(object.get(), kProgram);
  if (program == nullptr) return Unsupported("find datagram filter", ENOENT);
  maps.program = Duplicate(bpf_program__fd(program));
  bool whole = static_cast<bool>(maps.program);
  for (const MapName& each : kMaps) {
    maps.*each.fd = Duplicate(bpf_object__find_map_fd_by_name(object.get(), each.name));
    whole = whole && maps.*each.fd;
  }
  if (!whole) return Fail(Reason::kKernelRefused, "keep datagram filter", std::strerror(errno));
  return maps;
}

// All or none; returns why not.
std::string Pin(const DatagramMaps& maps, const std::string& folder) {
  for (const MapName& each : kMaps) {
    const std::string path = Pinned(folder, each.name);
    if ((unlink(path.c_str()) != 0 && errno != ENOENT) ||
        bpf_obj_pin((maps.*each.fd).get(), path.c_str()) != 0) {
      const std::string why = path + ": " + std::strerror(errno);
      UnpinDatagramMaps(folder);
      return why;
    }
  }
  return {};
}

}  // namespace

Result<DatagramMaps> LoadDatagramMaps(const std::string& base) {
  Result<Object> object = OpenObject();
  if (!object) return std::unexpected(object.error());
  std::string folder;
  std::string not_pinned;
  if (!base.empty()) not_pinned = MakeFolders(base, &folder);
  if (base.empty() || !not_pinned.empty()) {
    Result<DatagramMaps> maps = Load(std::move(*object));
    if (maps) maps->not_pinned = std::move(not_pinned);
    return maps;
  }
  if (Reuse(object->get(), folder)) {
    if (Result<DatagramMaps> maps = Load(std::move(*object)); maps) {
      maps->pins = folder;
      maps->inherited = true;
      return maps;
    }
  }
  Result<Object> fresh = OpenObject();
  if (!fresh) return std::unexpected(fresh.error());
  Result<DatagramMaps> maps = Load(std::move(*fresh));
  if (!maps) return maps;
  maps->not_pinned = Pin(*maps, folder);
  if (maps->not_pinned.empty()) maps->pins = folder;
  return maps;
}

void UnpinDatagramMaps(const std::string& pins) {
  if (pins.empty()) return;
  for (const MapName& each : kMaps) unlink(Pinned(pins, each.name).c_str());
  rmdir(pins.c_str());
}

}  // namespace latchkey::broker
