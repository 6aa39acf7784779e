// Why a flow was refused or broken: one stable word each, and the errno a program sees for it.
//
// The words are an interface: logs, counters, JSON and the man pages use them alike, so a word is
// never renamed or re-used. Freestanding: the shim and the broker both include this.
#ifndef SHIM_WIRE_REASON_H_
#define SHIM_WIRE_REASON_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace latchkey::wire {

// X(enumerator, word, errno). The number on the wire is the position: add at the end only.
#define LATCHKEY_REASONS(X)                                                                    \
  X(kNone, "none", 0)                                                                          \
  X(kPolicyDiscard, "policy-discard", EACCES)           /* a rule or default says no */        \
  X(kBadPolicy, "bad-policy", EACCES)                   /* policy missing or in error */       \
  X(kUnprivilegedBypass, "unprivileged-bypass", EACCES) /* less than the system asks */        \
  X(kNoSa, "no-sa", ENOKEY)                             /* none there, none to be had */       \
  X(kAcquireTimeout, "acquire-timeout", ETIMEDOUT)      /* key exchange did not answer */      \
  X(kPeerMismatch, "peer-mismatch", EKEYREJECTED)       /* the peer is somebody else */        \
  X(kPeerUnknown, "peer-unknown", EKEYREJECTED)         /* the PAD names nobody */             \
  X(kAmbiguousPeer, "ambiguous-peer", EKEYREJECTED)     /* more than one identity */           \
  X(kWeakProtection, "weak-protection", EPROTO)         /* the SA is not as asked */           \
  X(kConflictSa, "conflict-sa", ECONNRESET)             /* another SA for the flow */          \
  X(kConflictSpd, "conflict-spd", EACCES)               /* an SPD entry in the way */          \
  X(kPeerDead, "peer-dead", ECONNRESET)                                                        \
  X(kKmLost, "km-lost", ECONNRESET)                                                            \
  X(kAdmin, "admin", ECONNRESET)                                                               \
  X(kBrokerGone, "broker-gone", EHOSTUNREACH)                                                  \
  X(kNoSession, "no-session", EHOSTUNREACH)           /* token unknown to the broker */        \
  X(kForeignNetns, "foreign-netns", EACCES)           /* not the broker's namespace */         \
  X(kShimNotLoaded, "shim-not-loaded", EACCES)        /* no check-in after exec */             \
  X(kUnlatchedListener, "unlatched-listener", EACCES) /* child of an unknown listener */       \
  X(kLocalPeer, "local-peer", EACCES)                 /* same host, and no rule for it */      \
  X(kLimit, "limit", EACCES)                          /* too many sessions or latches */       \
  X(kKernelRefused, "kernel-refused", EHOSTUNREACH)   /* a kernel request failed */            \
  X(kUnsupported, "unsupported", EPROTONOSUPPORT)     /* not in this version */                \
  X(kBadRequest, "bad-request", EINVAL)                                                        \
  X(kSuspectGap, "suspect-gap", ECONNRESET)             /* events lost, facts differ */        \
  X(kClosed, "closed", ECONNRESET)                      /* the program closed it */            \
  X(kUnprivilegedWeaken, "unprivileged-weaken", EACCES) /* other than the system asks */       \
  X(kBadSignature, "bad-signature", EACCES)             /* of a policy: not by whom it says */ \
  X(kPolicyExpired, "policy-expired", EACCES)           /* its last day is over */             \
  X(kPolicyRollback, "policy-rollback", EACCES)         /* a newer one was seen before */      \
  X(kNoChild, "no-child", ENOKEY)                       /* IKE has no child that fits */       \
  X(kAuthFailed, "auth-failed", EKEYREJECTED)           /* the key exchange's own verdict */   \
  X(kNoProposal, "no-proposal", EPROTO)                 /* the peer takes none of ours */      \
  X(kOffloadUntagged, "offload-untagged", EPROTO)       /* a card hides the SA */              \
  X(kFenced, "fenced", EPERM)                           /* never decided: the fence */         \
  X(kNoXfrm, "no-xfrm", EPROTO)                         /* a device keeps the SPD out */

enum class Reason : uint16_t {
#define LATCHKEY_X(name, word, err) name,
  LATCHKEY_REASONS(LATCHKEY_X)
#undef LATCHKEY_X
};

inline constexpr uint16_t kReasonCount = 0
#define LATCHKEY_X(name, word, err) +1
    LATCHKEY_REASONS(LATCHKEY_X)
#undef LATCHKEY_X
    ;

// Returns the stable word of `reason`; "unknown" for a number that is none of ours.
constexpr const char* ReasonWord(Reason reason) {
  switch (reason) {
#define LATCHKEY_X(name, word, err) \
  case Reason::name:                \
    return word;
    LATCHKEY_REASONS(LATCHKEY_X)
#undef LATCHKEY_X
  }
  return "unknown";
}

// Returns the errno a program sees when a call is refused for `reason`. A number that is none of
// ours is a refusal too (EACCES): an unknown reason must never read as success.
constexpr int ReasonErrno(Reason reason) {
  switch (reason) {
#define LATCHKEY_X(name, word, err) \
  case Reason::name:                \
    return err;
    LATCHKEY_REASONS(LATCHKEY_X)
#undef LATCHKEY_X
  }
  return EACCES;
}

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_REASON_H_
