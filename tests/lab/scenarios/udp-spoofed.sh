# An unconnected UDP server where only tags tell SAs apart: one peer's address under another's SA, a second identity at an address, another local address, fragments, a fork.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice carol
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml"
# SAs that name no addresses in their selectors: the kernel takes anything under each of them.
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080' 'timeout 3'
expect srv ok
expect srv ok

# a has no Latchkey, but carol's key: what it sends to b goes under the SA that its SPD names.
key=$(ip -n b xfrm state list src 10.9.0.3 dst 10.9.0.2 | sed -n 's/.*aead /aead /p')
spi=$(ip -n b xfrm state | grep -A1 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.* spi \(0x[0-9a-f]*\) .*/\1/p')
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 9 mode transport replay-window 32 $key ||
  fail "no SA of carol's at a"
use_reqid() { # use_reqid ADD-OR-UPDATE REQID
  ip -n a xfrm policy "$1" src 10.9.0.1 dst 10.9.0.2 proto udp dport 8080 dir out tmpl proto esp reqid "$2" mode transport ||
    fail "no policy on a"
}
dropped() { awk '$1 == "XfrmInTmplMismatch" || $1 == "XfrmInStateMismatch" { n += $2 } END { print n + 0 }' < <(on b cat /proc/net/xfrm_stat); }
use_reqid add 7
sock a cli 'udp-new 10.9.0.2'
expect cli ok
want cli 'sendto 10.9.0.2 8080 canary-alice' ok
want srv udp-answer canary-alice
want cli recv canary-alice

# Her address, carol's SA: the kernel takes it in, and the filter knows better.
use_reqid update 9
before=$(esp_packets wire a b)
want cli 'sendto 10.9.0.2 8080 canary-carol' ok
want srv recvfrom timeout
check "it was sent" [ "$(esp_packets wire a b)" -gt "$before" ]
expect_eq "and nothing but the filter dropped it" "$(dropped)" 0
use_reqid update 7
want cli 'sendto 10.9.0.2 8080 canary-again' ok
want srv udp-answer canary-again
want cli recv canary-again

# Somebody else has SAs with her address too: neither is heard, nor answered, until he is gone.
manual_sa a b 11 mallory bob
want_refusal b conflict-sa
want cli 'sendto 10.9.0.2 8080 canary-who' ok
want srv recvfrom timeout
want srv 'sendto 10.9.0.1 9000 canary-out' EKEYREJECTED
sa_delete a b 11
served() {
  ask cli 'sendto 10.9.0.2 8080 canary-later'
  ask srv recvfrom
  [ "${REPLY#*: }" = 'canary-later 10.9.0.1' ]
}
check "she is, when he is gone" retry 20 served

# From another of our addresses there is no SA to answer under, so nothing leaves.
ip -n b address add 10.9.0.22/24 dev eth0 || fail "no second address at b"
before=$(packets wire 'host 10.9.0.22 and not arp')
want cli 'sendto 10.9.0.2 8080 canary-elsewhere' ok
ask srv 'udp-answer-from 10.9.0.22'
expect_eq "after \"$REPLY\" nothing of it is on the wire" "$(packets wire 'host 10.9.0.22 and not arp')" "$before"

# Larger than the path: it goes in pieces, all of them ESP.
want cli 'sendto-of 10.9.0.2 8080 6000' ok
want srv recv-size '6002 <>'

# A child reads from the same socket what its parent would.
want cli 'sendto 10.9.0.2 8080 canary-child' ok
want srv 'in-child recvfrom' 'recvfrom: canary-child 10.9.0.1'
use_reqid update 9
want cli 'sendto 10.9.0.2 8080 canary-carol' ok
want srv 'in-child recvfrom' timeout # its own: the child waits on
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP between a and b" "$(non_esp wire a b)" 0
