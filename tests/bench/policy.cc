// What decisions and policies cost: Decide() by the number of rules, and reading a signed policy of
// a thousand. Prints a table; `tests/bench/run` runs it.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "policy/decide.h"
#include "policy/parse.h"
#include "policy/signature.h"
#include "shim/wire/page.h"

namespace latchkey::policy {
namespace {

using Clock = std::chrono::steady_clock;

std::string PolicyText(int rules) {
  std::string text =
      "latchkey = 1\napplication = \"bench\"\nserial = 1\n[protection.p]\nencryption = "
      "[\"aes-gcm-16\"]\n[peer.q]\nid = [\"bob\"]\n";
  for (int i = 0; i < rules; ++i) {
    text += fmt::format(
        "[[rule]]\nname = \"rule {}\"\ndirection = \"out\"\nremote = [\"10.{}.{}.0/24\"]\n"
        "remote_port = [{}]\naction = \"protect\"\nprotection = \"p\"\npeer = \"q\"\n",
        i, i / 256, i % 256, 1 + i);
  }
  return text;
}

// The least of many rounds, in nanoseconds a call: what the machine does beside only adds.
template <typename Call>
double Least(int rounds, int calls, const Call& call) {
  double least = 1e18;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
    least = std::min(least, took.count() / calls);
  }
  return least;
}

int Main() {
  fmt::print("Policies: the least of many rounds\n");
  const SystemPolicy system;
  const std::vector<SpdEntry> spd(2);
  for (const int rules : {1, 10, 100, 1000}) {
    const auto policy = Parse(PolicyText(rules), "bench.toml");
    if (!policy) return 1;
    // What the last rule speaks of: every one is looked at.
    const Rule& last = policy->rules.back();
    Flow flow;
    flow.local.address = *Address::Parse("192.0.2.1");
    flow.remote = {last.remote[0].base, last.remote_port[0].low};
    uint64_t protects = 0;
    const double took = Least(50, 2000, [&] {
      const Verdict verdict = Decide({system, spd}, *policy, {1000, {}}, flow, false);
      protects += verdict.outcome == Outcome::kProtect ? 1 : 0;
    });
    if (protects != 50 * 2000) return 1;
    fmt::print("decide, {:4} rules, the last one matches  {:8.1f} ns{}\n", rules, took,
               rules == 100 ? "   (aim: 1000 ns)" : "");
  }
  const std::string text = PolicyText(1000);
  Result<SecretKey> key = SecretKey::Generate();
  if (!key) return 1;
  Result<std::string> signed_text = key->Sign(text, "bench");
  if (!signed_text) return 1;
  const PublicKey pub = key->Public();
  size_t rules = 0;
  const double took = Least(20, 1, [&] {
    const Result<Signature> signature = ReadSignature(*signed_text);
    if (!signature || !Verify(text, *signature, pub)) return;
    const auto policy = Parse(text, "bench.toml");
    if (policy) rules += policy->rules.size();
  });
  if (rules != 20 * 1000) return 1;
  fmt::print("verify and parse, 1000 rules, signed      {:8.2f} ms   (aim: 20 ms; {} octets)\n",
             took / 1e6, text.size());
  fmt::print("a rule in the page that programs see      {:8} octets (aim: 64)\n",
             sizeof(wire::PageRule));
  return 0;
}

}  // namespace
}  // namespace latchkey::policy

int main() { return latchkey::policy::Main(); }
