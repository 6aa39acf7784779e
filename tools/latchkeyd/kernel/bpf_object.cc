#include "tools/latchkeyd/kernel/bpf_object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

namespace latchkey::broker {
namespace {

constexpr const char* kFileSystem = "/sys/fs/bpf";  // where systemd, too, mounts it

struct CloseObject {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using Object = std::unique_ptr<bpf_object, CloseObject>;

int SayNothing(libbpf_print_level, const char*, va_list) { return 0; }

std::unexpected<Error> Unsupported(const std::string& step, int number) {
  std::string why = std::strerror(number);
  if (number == EPERM) why = "not without CAP_BPF";
  if (number == ENOSYS) why = "this kernel has no eBPF";
  return Fail(Reason::kUnsupported, step, why);
}

Result<Object> OpenObject(const BpfSource& source) {
  libbpf_set_print(SayNothing);
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "latchkey");
  Object object(bpf_object__open_mem(source.object.data(), source.object.size(), &options));
  if (!object) return Unsupported("open " + source.name, errno);
  for (const auto& [name, fd] : source.shared) {
    bpf_map* map = bpf_object__find_map_by_name(object.get(), name.c_str());
    if (map == nullptr || bpf_map__reuse_fd(map, fd) != 0) {
      return Unsupported("share " + name + " with " + source.name, errno);
    }
  }
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
std::string MakeFolders(const std::string& base, const std::string& layout, std::string* folder) {
  if (base.starts_with(kFileSystem) && !IsBpfFileSystem(kFileSystem) &&
      mount("bpf", kFileSystem, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return std::string("no BPF file system at ") + kFileSystem + ": " + std::strerror(errno);
  }
  struct stat netns {};
  if (stat("/proc/thread-self/ns/net", &netns) != 0) return "no /proc";
  if (std::string why = MakeFolder(base); !why.empty()) return why;
  if (!IsBpfFileSystem(base.c_str())) return base + " is in no BPF file system";
  // Another layout is another folder: what it holds is not ours to understand.
  *folder = base + "/" + layout + "-" + std::to_string(netns.st_ino);
  return MakeFolder(*folder);
}

std::string Pinned(const std::string& folder, const std::string& name) {
  return folder + "/" + name;
}

// All or none.
bool Reuse(bpf_object* object, const BpfSource& source, const std::string& folder) {
  std::vector<std::pair<bpf_map*, UniqueFd>> found;
  for (const std::string& name : source.maps) {
    bpf_map* map = bpf_object__find_map_by_name(object, name.c_str());
    if (map == nullptr) return false;
    UniqueFd fd = OpenPinned(Pinned(folder, name), map);
    if (!fd) return false;
    found.emplace_back(map, std::move(fd));
  }
  return std::ranges::all_of(found, [](const auto& each) {
    return bpf_map__reuse_fd(each.first, each.second.get()) == 0;
  });
}

UniqueFd Duplicate(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

Result<BpfObject> Load(Object object, const BpfSource& source) {
  if (bpf_object__load(object.get()) != 0) return Unsupported("load " + source.name, errno);
  BpfObject loaded;
  bool whole = true;
  for (const std::string& name : source.programs) {
    const bpf_program* program = bpf_object__find_program_by_name(object.get(), name.c_str());
    if (program == nullptr) return Unsupported("find " + source.name, ENOENT);
    whole = (loaded.programs[name] = Duplicate(bpf_program__fd(program))) && whole;
  }
  for (const std::string& name : source.maps) {
    const int fd = bpf_object__find_map_fd_by_name(object.get(), name.c_str());
    whole = (loaded.maps[name] = Duplicate(fd)) && whole;
  }
  if (!whole) return Fail(Reason::kKernelRefused, "keep " + source.name, std::strerror(errno));
  return loaded;
}

// All or none; returns why not.
std::string Pin(const BpfObject& object, const BpfSource& source, const std::string& folder) {
  for (const std::string& name : source.maps) {
    const std::string path = Pinned(folder, name);
    if ((unlink(path.c_str()) != 0 && errno != ENOENT) ||
        bpf_obj_pin(object.maps.at(name).get(), path.c_str()) != 0) {
      const std::string why = path + ": " + std::strerror(errno);
      UnpinBpf(source.maps, folder);
      return why;
    }
  }
  return {};
}

}  // namespace

Result<BpfObject> LoadBpf(const BpfSource& source, const std::string& base) {
  Result<Object> object = OpenObject(source);
  if (!object) return std::unexpected(object.error());
  std::string folder;
  std::string not_pinned;
  if (!base.empty()) not_pinned = MakeFolders(base, source.layout, &folder);
  if (base.empty() || !not_pinned.empty()) {
    Result<BpfObject> loaded = Load(std::move(*object), source);
    if (loaded) loaded->not_pinned = std::move(not_pinned);
    return loaded;
  }
  if (Reuse(object->get(), source, folder)) {
    if (Result<BpfObject> loaded = Load(std::move(*object), source); loaded) {
      loaded->pins = folder;
      loaded->inherited = true;
      return loaded;
    }
  }
  Result<Object> fresh = OpenObject(source);
  if (!fresh) return std::unexpected(fresh.error());
  Result<BpfObject> loaded = Load(std::move(*fresh), source);
  if (!loaded) return loaded;
  loaded->not_pinned = Pin(*loaded, source, folder);
  if (loaded->not_pinned.empty()) loaded->pins = folder;
  return loaded;
}

void UnpinBpf(const std::vector<std::string>& maps, const std::string& pins) {
  if (pins.empty()) return;
  for (const std::string& name : maps) unlink(Pinned(pins, name).c_str());
  rmdir(pins.c_str());
}

}  // namespace latchkey::broker
