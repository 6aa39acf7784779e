/* Latchkey's interface for programs that care: socket options at level SOL_LATCHKEY.
 *
 * A program runs unchanged under `latchkey run`. One that wants to know who is at the other end, or
 * to ask for its own protection, uses getsockopt() and setsockopt() on its TCP and UDP sockets,
 * from any language; this header has the numbers and the one structure. latchkey(7) describes them
 * in full.
 *
 * Without Latchkey the kernel answers EOPNOTSUPP or ENOPROTOOPT: ask for LATCHKEY_STATE first, and
 * take whatever fails for "not protected".
 *
 * errno of every option here:
 *   ENOTCONN      the socket has no latch: not connected or listening yet, or its flow was left to
 *                 the system (a bypass, or within the host)
 *   ENODATA       it has a latch, and this is not known of it: never a made-up value
 *   EHOSTUNREACH  there is no broker to ask, so nothing is known; EACCES: its policy was bad
 *   EINVAL        the buffer is too small for a number or a structure
 *   ERANGE        the buffer is too small for a text or for octets: *optlen is what they need
 *   EFAULT        a pointer is bad
 *   ENOPROTOOPT   no such option, or one that cannot be set (or asked)
 *   otherwise     what the kernel says: the socket is neither TCP nor UDP, or none at all
 */
#ifndef LATCHKEY_H_
#define LATCHKEY_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOL_LATCHKEY 0x4C4B

/* int, LATCHKEY_...: the state of the socket's latch. */
#define LATCHKEY_STATE 1
/* UTF-8, no NUL: who the peer has proved to be, and as whom this host proved itself to the peer, as
 * the key manager says. ENODATA for a listener and for a flow in clear. */
#define LATCHKEY_PEER_ID 2
#define LATCHKEY_LOCAL_ID 3
/* struct latchkey_info. */
#define LATCHKEY_INFO 4
/* setsockopt only, before connect() or listen(), once: what the flow is to have, in the words of a
 * policy. See below. */
#define LATCHKEY_REQUEST 5
/* int, LATCHKEY_RESET or LATCHKEY_SUSPEND: what becomes of the socket when its latch breaks. It is
 * chosen by on_break of the policy, or of a request. */
#define LATCHKEY_DISPOSITION 6
/* Octets for a channel binding (RFC 5056): the type's name and ":", then the binding, the same at
 * both ends. The one type so far is "ipsec-end-point-sha256". ENODATA where the public keys of both
 * ends are not known beyond doubt: never for pre-shared or manual keys. */
#define LATCHKEY_CHANNEL_BINDING 7
/* int, 0 or 1, UDP: received datagrams come with the cmsg LATCHKEY_LATCH, and those that are sent
 * may have one. Set before the first is received. See below. */
#define LATCHKEY_LATCHES 8
/* struct latchkey_info of one latch of a UDP socket: `id` in the buffer, of 16 octets at least,
 * says which; ENOTCONN where the socket has none of that id (any more). */
#define LATCHKEY_PEER_INFO 9

/* cmsg, uint64_t: a latch's id, as in an info. */
#define LATCHKEY_LATCH 1

/* States (RFC 5660, 2.2). Only LATCHKEY_ESTABLISHED means: bound to one authenticated peer. */
enum {
  LATCHKEY_LARVAL = 0,   /* waits for keys; nothing moves */
  LATCHKEY_LISTENER = 1, /* listens; what it accepts is latched. UDP: has a latch for each peer */
  LATCHKEY_ESTABLISHED = 2,
  LATCHKEY_BROKEN = 3, /* in conflict; nothing moves */
  LATCHKEY_CLOSED = 4,
  LATCHKEY_CLEAR = 5 /* the policy let it go unprotected, for life: it has no peer */
};

enum { LATCHKEY_RESET = 1, LATCHKEY_SUSPEND = 2 };

/* Room that is enough for any value of these options. */
#define LATCHKEY_ID_MAX 256
#define LATCHKEY_NAME_MAX 64
#define LATCHKEY_BINDING_MAX 96

struct latchkey_endpoint {
  uint16_t family; /* AF_INET, AF_INET6; 0: not known */
  uint16_t port;   /* host order */
  uint32_t scope;  /* of IPv6 */
  uint8_t address[16];
};

/* Flags of an info. */
#define LATCHKEY_IMPLICIT 1u   /* the system asked for it, not the application */
#define LATCHKEY_IN_CLEAR 2u   /* unprotected */
#define LATCHKEY_NAT_LOCAL 16u /* a NAT before us, or before the peer */
#define LATCHKEY_NAT_REMOTE 32u
#define LATCHKEY_OFFLOAD_CRYPTO \
  64u /* the network card does the SA's work; or that of its packets */
#define LATCHKEY_OFFLOAD_PACKET 128u

/* What is latched. Texts are UTF-8 and end in a NUL; an empty one, and 0 where it means nothing, is
 * not known or does not apply.
 *
 * It grows at its end, and fields keep their places. getsockopt() fills in as much as the buffer
 * takes (at least 8 octets) and sets *optlen to that; `size` says how much this Latchkey has. A
 * field beyond `size` is not known. `version` changes only with the meaning of what was there. */
struct latchkey_info {
  uint32_t size;
  uint32_t version; /* LATCHKEY_INFO_VERSION */
  uint64_t id;      /* as `latchkey list` shows it */
  uint64_t since;   /* seconds since 1970 */
  int32_t state;
  int32_t disposition;
  uint32_t flags;
  uint32_t reqid;
  uint32_t spi_in; /* host order */
  uint32_t spi_out;
  uint16_t key_bits;   /* of the encryption, or of the integrity where there is none */
  uint8_t sa_protocol; /* IPPROTO_ESP, IPPROTO_AH; 0: not known */
  uint8_t mode;        /* 0 transport, 1 tunnel; 255: not known */
  uint8_t replay;      /* 1: replay protection is in use */
  uint8_t esn;         /* 1: extended sequence numbers */
  uint8_t pin;         /* 1 held to the SAs' reqid, 2 to their SPIs */
  uint8_t protocol;    /* of the flow: IPPROTO_TCP, IPPROTO_UDP */
  struct latchkey_endpoint local;
  struct latchkey_endpoint remote;
  struct latchkey_endpoint outer_local;  /* of the IKE SA, with its ports: the tunnel's ends; */
  struct latchkey_endpoint outer_remote; /* behind a NAT, what that shows */
  char peer_id[LATCHKEY_ID_MAX];
  char local_id[LATCHKEY_ID_MAX];
  char auth[LATCHKEY_NAME_MAX]; /* how the peer proved it: pubkey, psk, eap, manual */
  char encryption[LATCHKEY_NAME_MAX];
  char integrity[LATCHKEY_NAME_MAX];
  char policy[LATCHKEY_NAME_MAX]; /* the application's name in its policy, and the rule */
  char rule[LATCHKEY_NAME_MAX];
  char reason[32];  /* why it is broken or closed: one stable word */
  uint64_t dropped; /* UDP, not connected: datagrams that came and were not taken in */
};

#define LATCHKEY_INFO_VERSION 1u

/* LATCHKEY_REQUEST: a text of at most 2047 octets, the same TOML as a policy's: one [[rule]], and
 * the [protection.NAME] and [peer.NAME] that it names. The rule says how, not for what: it has no
 * remote, local, remote_port, local_port and protocol. So
 *
 *   static const char wish[] =
 *       "[[rule]]\n"
 *       "action = \"protect\"\n"
 *       "peer = \"db\"\n"
 *       "[peer.db]\n"
 *       "id = [\"db1.example\"]\n"
 *       "auth = [\"pubkey\"]\n";
 *   setsockopt(fd, SOL_LATCHKEY, LATCHKEY_REQUEST, wish, sizeof(wish) - 1);
 *
 * It adds to the application's policy and the system's, and takes nothing away from them but what
 * the user's own grants allow. That is decided, before anything reaches the kernel, at connect() or
 * listen() and for each accepted connection; they fail then as for a policy (EACCES, EKEYREJECTED,
 * EPROTO, ...). Until then the socket sends nothing at all. A listener's request must protect.
 *
 * errno beside those above: EINVAL, the text is no request (`latchkey why` says what is wrong with
 * it); EISCONN, the socket is connected, listens, or was used before; EALREADY, it has a request;
 * E2BIG, the text is too long; EACCES, too many. */
#define LATCHKEY_REQUEST_MAX 2047

/* LATCHKEY_LATCH. With recvmsg() and recvmmsg() on a socket with LATCHKEY_LATCHES: the latch that
 * the datagram came under; 0, none: in clear, as the policy lets it, or under one that has ended.
 * Give a msg_name, too: without it the latch of a peer that the program sent to first is not known.
 * With sendmsg() and sendmmsg() on such a socket: the latch that the datagram is to leave under.
 * Nothing is sent, and errno is EPERM where it is not the socket's, or another peer's than
 * msg_name's; ECONNRESET where it is not ESTABLISHED, or there is none any more; EINVAL for no
 * uint64_t, or two; ENOBUFS for more than 1024 octets of control data around it.
 * Without the option nothing is sent either (EPERM); without Latchkey the kernel ignores it. */

#ifdef __cplusplus
}
#endif

#endif /* LATCHKEY_H_ */
