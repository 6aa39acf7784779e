// `latchkey doctor`: what would keep Latchkey from working here, and what to do about it.

#include <cstdlib>
#include <utility>

#include "tools/latchkey/capabilities.h"
#include "tools/latchkey/charon_lists.h"
#include "tools/latchkey/doctor_broker.h"
#include "tools/latchkey/doctor_charon.h"
#include "tools/latchkey/doctor_devices.h"
#include "tools/latchkey/doctor_files.h"
#include "tools/latchkey/doctor_hold.h"
#include "tools/latchkey/doctor_kernel.h"
#include "tools/latchkey/doctor_keys.h"
#include "tools/latchkey/doctor_marks.h"
#include "tools/latchkey/doctor_offload.h"
#include "tools/latchkey/doctor_program.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"
#include "tools/latchkeyd/kernel/no_xfrm.h"

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
  Append(findings, DeviceFindings(broker::ReadNoXfrm()));

  uint32_t mark_mask = kDefaultMarkMask;
  Append(findings, FileFindings({}, mark_mask));
  if (const auto rules = ReadMarkRules(); rules) {
    Append(findings, MarkFindings(*rules, mark_mask));
  } else {
    findings.push_back(Note("routing rules cannot be read (" + rules.error() + ")",
                            "see with `ip rule` that none uses the bits of mark_mask"));
  }
  Append(findings, BrokerFindings(ReachBrokers(options.socket)));
  if (!HasNetAdmin()) {
    findings.push_back(
        Note("not root: not looked for what the broker may do, and who does the work of SAs",
             "run it as root"));
  } else {
    Append(findings, HoldFindings(ReadHolds()));
    if (const auto offload = ReadOffload(); offload) {
      Append(findings, OffloadFindings(*offload));
    } else {
      findings.push_back(Note("offload: the SAD cannot be read (" + offload.error() + ")",
                              "see with `ip xfrm state` that no SA has `mode packet`"));
    }
  }
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
