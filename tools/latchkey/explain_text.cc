#include "tools/latchkey/explain_text.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>
#include <vector>

#include "policy/algorithms.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/spd_table.h"

namespace latchkey::tool {
namespace {

using policy::Outcome;
using Json = nlohmann::json;

const char* ActionWord(policy::Action action) {
  switch (action) {
    case policy::Action::kProtect:
      return "protect";
    case policy::Action::kProtectOrBypass:
      return "protect-or-bypass";
    case policy::Action::kBypass:
      return "bypass";
    case policy::Action::kDiscard:
      return "discard";
    case policy::Action::kSystem:
      return "system";
  }
  return "?";
}

const char* SystemWord(SystemAction action) {
  switch (action) {
    case SystemAction::kBypass:
      return "bypass";
    case SystemAction::kProtect:
      return "protect";
    case SystemAction::kDiscard:
      return "discard";
  }
  return "?";
}

const char* ResultWord(const Explanation& answer) {
  if (answer.clear) return "CLEAR";
  switch (answer.verdict.outcome) {
    case Outcome::kProtect:
      return answer.reason == wire::Reason::kNone ? "PROTECT" : "REFUSED";
    case Outcome::kBypass:
      return "BYPASS";
    case Outcome::kClear:
      return "CLEAR";
    case Outcome::kLocal:
      return "LOCAL";
    case Outcome::kRefuse:
      break;
  }
  return "REFUSED";
}

std::string FlowText(const Flow& flow) {
  const auto end = [](const SocketAddress& address) {
    return address.port == 0 ? address.address.ToString() + " any port" : address.ToString();
  };
  const char* arrow = flow.direction == Direction::kIn ? " <- " : " -> ";
  return ProtocolWord(flow.protocol) + " " + end(flow.local) + arrow + end(flow.remote);
}

std::string SystemText(const policy::SystemAsk& ask, const Source& source) {
  std::string text = SystemWord(ask.action);
  if (ask.spd != nullptr) text += ", SPD: " + SpdText(*ask.spd);
  if (ask.rule != nullptr) {
    text += fmt::format(", {}:{}: rule \"{}\", {}", source.system, ask.rule->line,
                        Printable(ask.rule->name), ActionWord(ask.rule->action));
  }
  if (ask.spd == nullptr && ask.rule == nullptr) text += ": nothing speaks of it";
  return text;
}

std::string RuleText(const Explanation& answer, const Source& source) {
  const policy::Rule* rule = answer.verdict.rule;
  if (source.policy.empty()) return "no policy: the system's alone holds";
  if (rule == nullptr) return source.policy + ": no rule speaks of it: its default";
  return fmt::format("{}:{}: rule \"{}\", {}", source.policy, rule->line, Printable(rule->name),
                     ActionWord(rule->action));
}

std::string DemandText(const policy::Demand& demand) {
  std::string text = policy::Describe(demand.algorithms, 8);
  text += demand.mode ? ", " + ModeWord(*demand.mode) : ", any mode";
  if (demand.replay) text += ", replay";
  if (demand.esn) text += ", esn";
  if (demand.unique) text += ", an SA of its own";
  if (demand.reqid != 0) text += fmt::format(", reqid {}", demand.reqid);
  for (const PeerSpec* peer : demand.peers) {
    text += ", peer";
    for (const std::string& id : peer->ids) text += " \"" + Printable(id) + "\"";
    for (const std::string& auth : peer->auth) text += " by " + auth;
  }
  if (demand.peers.empty()) text += ", any authenticated peer";
  return text;
}

std::string SaText(const Explanation& answer, const Source& source) {
  if (!source.live) return "not known: " + source.broker;
  if (!answer.sa) return answer.child ? "none yet" : "none: " + Printable(answer.detail);
  const broker::Sa& sa = answer.sa->sa;
  return fmt::format(
      "{}, reqid {}, SPI {}, peer \"{}\"", sa.protection.ToString(), sa.reqid, SpiText(sa.key.spi),
      answer.sa->who.known() ? Printable(answer.sa->who.verified.identity.peer_id) : "");
}

std::string PadText(const Explanation& answer, const Source& source) {
  std::string text;
  for (const PadName& name : answer.pad) {
    text += text.empty() ? "" : "; ";
    text += name.reqid != 0 ? fmt::format("reqid {}", name.reqid) : "SPI " + SpiText(name.spi);
    if (name.peer_id.empty()) {
      text += " is nobody's: entries disagree";
    } else {
      text +=
          " is \"" + Printable(name.peer_id) + (name.fits ? "\"" : "\", not the peer asked for");
    }
  }
  return source.pad + ": " + (text.empty() ? "names nobody there" : text);
}

std::string GrantsText(const policy::Grants& grants) {
  std::string text;
  for (const policy::GrantWord& each : policy::kGrantWords) {
    if (grants.Has(each.grant)) text += (text.empty() ? "" : ", ") + std::string(each.word);
  }
  return text.empty() ? "none" : text;
}

std::string DecisionText(const Explanation& answer) {
  std::string text = ResultWord(answer);
  if (answer.reason != wire::Reason::kNone && !answer.clear) {
    text += fmt::format(": {} ({})", wire::ReasonWord(answer.reason),
                        strerrorname_np(wire::ReasonErrno(answer.reason)));
  } else if (answer.clear) {
    text += ": optional protection, and there is no SA";
  } else if (answer.verdict.outcome == Outcome::kBypass) {
    text += ": left to the SPD, which asks nothing of it";
  } else if (answer.verdict.outcome == Outcome::kClear) {
    text += ": by a grant, whatever the system asks";
  } else if (answer.verdict.outcome == Outcome::kLocal) {
    text += ": within this host";
  } else if (answer.verdict.implicit) {
    text += ": implicitly, because the system asks";
  }
  if (answer.child) {
    text += answer.verdict.implicit ? "; " : ": ";
    text += fmt::format("an SA will be negotiated (child \"{}\" of connection \"{}\")",
                        Printable(answer.child->child), Printable(answer.child->ike));
    if (answer.verdict.permit) text += ", and CLEAR where none can be had";
  }
  return text;
}

bool Protects(const Explanation& answer) { return answer.verdict.outcome == Outcome::kProtect; }

}  // namespace

bool Passes(const Explanation& answer) {
  return answer.clear ||
         (answer.verdict.outcome != Outcome::kRefuse && answer.reason == wire::Reason::kNone);
}

std::string HintFor(wire::Reason reason) {
  switch (reason) {
    case wire::Reason::kPolicyDiscard:
      return "a rule before the one that discards, or, where the system does, the grant "
             "\"override-discard\" in system.toml";
    case wire::Reason::kUnprivilegedBypass:
      return "ask for protection, or have system.toml grant \"bypass\" to this user or to a signer "
             "of the policy";
    case wire::Reason::kUnprivilegedWeaken:
      return "ask for what the system asks (see \"system\") or a suite of a stronger class, or "
             "have "
             "system.toml grant \"weaken\"";
    case wire::Reason::kConflictSpd:
      return "the SPD and system.toml contradict each other about this flow: change one";
    case wire::Reason::kNoSa:
      return "install SAs for these addresses (latchkey sa add), both ways and under one reqid";
    case wire::Reason::kNoChild:
      return "a child in swanctl.conf that can be initiated for it: remote_addrs (no %any), "
             "remote_ts "
             "and local_ts that cover the flow, the mode and a peer as asked; or install SAs "
             "(latchkey sa add)";
    case wire::Reason::kKmLost:
      return "start charon, or have it answer";
    case wire::Reason::kPeerMismatch:
      return "add the peer's id to the rule's peer, if it is the one that is meant";
    case wire::Reason::kPeerUnknown:
      return "say in /etc/latchkey/pad.toml whose the SA is";
    case wire::Reason::kAmbiguousPeer:
      return "leave SAs, or children in swanctl.conf, of one peer alone for these addresses; a "
             "rule "
             "can name its child";
    case wire::Reason::kWeakProtection:
      return "key the SA with a suite that the rule asks for, or change [protection]";
    case wire::Reason::kConflictSa:
      return "leave SAs of one kind for these addresses";
    case wire::Reason::kLocalPeer:
      return "a bypass rule for clients on this host before the one that protects";
    default:
      return {};
  }
}

std::string ExplainText(const Explanation& answer, const Source& source) {
  std::string text;
  const auto line = [&text](const char* name, const std::string& value) {
    text += fmt::format("{:<9} {}\n", std::string(name) + ":", value);
  };
  line("flow", FlowText(answer.flow));
  line("facts", source.live ? "the SPD and SAD as they are (" + source.broker + ")"
                            : "files alone, no SPD and no SAs: " + source.broker);
  line("user",
       fmt::format("{}, grants: {}", source.requester.uid, GrantsText(source.requester.grants)));
  line("system", SystemText(answer.verdict.system, source));
  line("rule", RuleText(answer, source));
  if (const policy::Rule* rule = answer.unconnected; rule != nullptr) {
    line("but", fmt::format("without a connection, {}:{}: rule \"{}\", {}: {}", source.policy,
                            rule->line, Printable(rule->name), ActionWord(rule->action),
                            answer.flow.direction == Direction::kIn
                                ? "what is let in gives way to it, for it would be let out too"
                                : "what is about incoming datagrams too comes first"));
  }
  if (Protects(answer)) {
    line("asked", DemandText(answer.verdict.demand));
    line("SA", SaText(answer, source));
    if (!source.pad.empty()) line("PAD", PadText(answer, source));
  }
  line("decision", DecisionText(answer));
  if (const std::string hint = HintFor(answer.reason); !Passes(answer) && !hint.empty()) {
    line("to change", hint);
  }
  return text;
}

Json ExplainJson(const Explanation& answer, const Source& source) {
  const auto end = [](const SocketAddress& address) {
    return Json{{"address", address.address.ToString()},
                {"port", address.port == 0 ? Json(nullptr) : Json(address.port)}};
  };
  const policy::SystemAsk& ask = answer.verdict.system;
  const policy::Rule* rule = answer.verdict.rule;
  const auto named = [](const policy::Rule* one) {
    return one == nullptr
               ? Json(nullptr)
               : Json{
                     {"name", one->name}, {"line", one->line}, {"action", ActionWord(one->action)}};
  };
  Json document = {
      {"direction", answer.flow.direction == Direction::kIn ? "in" : "out"},
      {"protocol", ProtocolWord(answer.flow.protocol)},
      {"local", end(answer.flow.local)},
      {"remote", end(answer.flow.remote)},
      {"live", source.live},
      {"uid", source.requester.uid},
      {"grants", GrantsText(source.requester.grants)},
      {"system",
       {{"action", SystemWord(ask.action)},
        {"spd", ask.spd == nullptr ? Json(nullptr) : Json(SpdText(*ask.spd))},
        {"rule", ask.rule == nullptr ? Json(nullptr) : Json(ask.rule->name)}}},
      {"rule", named(rule)},
      {"unconnected", named(answer.unconnected)},
      {"asked", Protects(answer) ? Json(DemandText(answer.verdict.demand)) : Json(nullptr)},
      {"implicit", answer.verdict.implicit},
      {"decision", ResultWord(answer)},
      {"reason", answer.reason == wire::Reason::kNone || answer.clear
                     ? Json(nullptr)
                     : Json(wire::ReasonWord(answer.reason))},
      {"sa", nullptr},
      {"child", answer.child
                    ? Json{{"connection", answer.child->ike}, {"name", answer.child->child}}
                    : Json(nullptr)},
      {"pad", nullptr},
      {"to_change", Passes(answer) ? Json(nullptr) : Json(HintFor(answer.reason))}};
  if (Protects(answer) && !source.pad.empty()) {
    document["pad"] = Json::array();
    for (const PadName& name : answer.pad) {
      document["pad"].push_back(
          {{"reqid", name.reqid != 0 ? Json(name.reqid) : Json(nullptr)},
           {"spi", name.spi != 0 ? Json(SpiText(name.spi)) : Json(nullptr)},
           {"peer_id", name.peer_id.empty() ? Json(nullptr) : Json(name.peer_id)},
           {"fits", name.fits}});
    }
  }
  if (answer.sa) {
    document["sa"] = {
        {"reqid", answer.sa->sa.reqid},
        {"spi", SpiText(answer.sa->sa.key.spi)},
        {"protection", answer.sa->sa.protection.ToString()},
        {"peer_id",
         answer.sa->who.known() ? Json(answer.sa->who.verified.identity.peer_id) : Json(nullptr)}};
  }
  return document;
}

}  // namespace latchkey::tool
