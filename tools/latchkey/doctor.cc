// `latchkey doctor`: what would keep Latchkey from working here, and what to do about it.

#include <cstdlib>
#include <utility>

#include "tools/latchkey/capabilities.h"
#include "tools/latchkey/charon_lists.h"
#include "tools/latchkey/doctor_broker.h"
#include "tools/latchkey/doctor_charon.h"
#include "tools/latchkey/doctor_files.h"
#include "tools/latchkey/doctor_kernel.h"
#include "tools/latchkey/doctor_keys.h"
#include "tools/latchkey/doctor_marks.h"
#include "tools/latchkey/doctor_program.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

constexpr uint32_t kDefaultMarkMask = 0xffff0000;

void Append(Findings& all, Findings some) {
  for (Finding& finding : some) all.push_back(std::move(finding));
}

}  // namespace

int Doctor(const DoctorOptions& options) {
  Findings findings;
  KernelFacts kernel = ReadKernel({});
  if (HasNetAdmin()) ProbeKernel(kernel);
  Append(findings, KernelFindings(kernel));

  uint32_t mark_mask = kDefaultMarkMask;
  Append(findings, FileFindings({}, mark_mask));
  if (const auto rules = ReadMarkRules(); rules) {
    Append(findings, MarkFindings(*rules, mark_mask));
  } else {
    findings.push_back(Note("routing rules cannot be read: " + rules.error()));
  }
  Append(findings, BrokerFindings(ReachBrokers(options.socket)));
  KeyManagerFacts keys = ReachKeyManager(kViciSocket);
  if (keys.error == 0) ListChildren(keys);
  Append(findings, KeyManagerFindings(keys));
  Append(findings, ShimFindings());
  if (!options.program.empty()) {
    Append(findings, ProgramFindings(options.program, std::getenv("PATH"), kPolicyFolder));
  }

  const int printed = Print(FindingsText(findings));
  return AnyBad(findings) ? kExitNo : printed;
}

}  // namespace latchkey::tool
