#include "tools/latchkey/doctor_files.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <expected>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string_view>
#include <vector>

#include "policy/pad.h"
#include "policy/system_parse.h"
#include "tools/latchkey/policy_file.h"

namespace latchkey::tool {
namespace {

using Parser = std::function<std::vector<policy::ParseError>(const std::string&)>;

// Why others than its owner decide what a file or folder says; "" when they do not.
std::string Unsafe(const struct stat& status, uid_t owner) {
  if (status.st_uid != owner) return "it belongs to uid " + std::to_string(status.st_uid);
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return "others may write it";
  return {};
}

std::string Repair(const std::string& path, uid_t owner) {
  return "chown " + std::to_string(owner) + " " + path + " && chmod go-w " + path;
}

// Looks at one file; true when it is there, safe and readable. One that is not there is no finding.
bool Examine(const std::string& path, uid_t owner, bool folder, Findings& findings) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    if (errno == EACCES) {
      findings.push_back(Note(path + ": only root can see it", "run it as root"));
    } else if (errno != ENOENT) {
      findings.push_back(Bad(path + ": " + std::strerror(errno), "see to it that it can be read"));
    }
    return false;
  }
  if (folder != S_ISDIR(status.st_mode) || (!folder && !S_ISREG(status.st_mode))) {
    findings.push_back(Bad(path + ": not a " + (folder ? "folder" : "regular file"), "replace it"));
    return false;
  }
  if (const std::string why = Unsafe(status, owner); !why.empty()) {
    findings.push_back(Bad(path + ": " + why, Repair(path, owner)));
    return false;
  }
  return true;
}

void ExamineText(const std::string& path, uid_t owner, const Parser& parse, Findings& findings) {
  if (!Examine(path, owner, /*folder=*/false, findings)) return;
  std::ifstream file(path);
  if (!file) {
    findings.push_back(Note(path + ": only root can read it", "run it as root"));
    return;
  }
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::vector<policy::ParseError> errors = parse(text);
  for (const policy::ParseError& error : errors) {
    findings.push_back(Bad(error.ToString(), "correct it: nothing of the file holds"));
  }
  if (errors.empty()) findings.push_back(Ok(path));
}

// The policies for programs: each must parse, and no program may be named by two.
void ExaminePolicies(const std::string& folder, uid_t owner, Findings& findings) {
  if (!Examine(folder, owner, /*folder=*/true, findings)) return;
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) {
    findings.push_back(Bad(folder + ": " + std::strerror(errno),
                           "let everybody read it: latchkey run looks there"));
    return;
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(listing)) {
    const std::string_view name = entry->d_name;
    if (name.ends_with(".toml") && !name.starts_with('.')) {
      names.push_back(folder + "/" + std::string(name));
    }
  }
  closedir(listing);
  std::sort(names.begin(), names.end());
  std::map<std::string, std::string> programs;
  for (const std::string& name : names) {
    if (!Examine(name, owner, /*folder=*/false, findings)) continue;
    const auto file = LoadPolicy(name);
    if (!file) {
      std::istringstream errors(file.error().text);
      for (std::string error; std::getline(errors, error);) {
        findings.push_back(Bad(error, "correct it: until then no program starts without -p"));
      }
      continue;
    }
    findings.push_back(Ok(name));
    for (const std::string& program : file->policy.program) {
      const auto [it, fresh] = programs.emplace(program, name);
      if (fresh || it->second == name) continue;
      std::string twice = program;
      twice.append(" is named by ").append(it->second).append(" and ").append(name);
      findings.push_back(Bad(twice, "take it out of one of them"));
    }
  }
}

}  // namespace

Findings FileFindings(const FilePlaces& places, uint32_t& mark_mask) {
  Findings findings;
  struct stat status {};
  if (stat(places.folder.c_str(), &status) != 0 && errno == ENOENT) {
    findings.push_back(
        Note("no " + places.folder + ": the kernel's SPD is all the policy there is",
             "make it, with a system.toml, where a floor is wanted for all programs"));
    return findings;
  }
  if (!Examine(places.folder, places.owner, /*folder=*/true, findings)) return findings;
  const std::string system = places.folder + "/system.toml";
  ExamineText(
      system, places.owner,
      [&](const std::string& text) {
        const auto parsed = policy::ParseSystem(text, system);
        if (!parsed) return parsed.error();
        mark_mask = parsed->mark_mask;
        return std::vector<policy::ParseError>();
      },
      findings);
  const std::string pad = places.folder + "/pad.toml";
  ExamineText(
      pad, places.owner,
      [&](const std::string& text) {
        const auto parsed = policy::ParsePad(text, pad);
        return parsed ? std::vector<policy::ParseError>() : parsed.error();
      },
      findings);
  ExaminePolicies(places.folder + "/policy.d", places.owner, findings);
  return findings;
}

}  // namespace latchkey::tool
