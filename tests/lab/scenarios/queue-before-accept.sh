# A child whose queue holds octets that came under another's SA is closed unseen.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'listen 0.0.0.0 8080'
expect srv ok

# a has no Latchkey here: its SPD says under which SA it sends.
use_reqid() { # use_reqid ADD-OR-UPDATE REQID
  ip -n a xfrm policy "$1" src 10.9.0.1 dst 10.9.0.2 proto tcp dport 8080 dir out tmpl proto esp reqid "$2" mode transport &&
    ip -n a xfrm policy "$1" src 10.9.0.2 dst 10.9.0.1 proto tcp sport 8080 dir in tmpl proto esp reqid 0 mode transport ||
    fail "no policy on a"
}
use_reqid add 7
# First that this way of sending works at all.
sock a honest 'connect 10.9.0.2 8080' 'send canary-honest'
expect honest ok
expect honest ok
want srv accept 10.9.0.1
want srv recv canary-honest
sock a cli 'connect 10.9.0.2 8080'
expect cli ok
# alice's SA goes, mallory's comes; mallory's octets join the queue of alice's child.
sa_delete a b 7
impostor
use_reqid update 9
before=$(on b nstat -saz TcpInSegs | awk '/InSegs/ { print $2 }')
want cli 'send canary-mallory' ok
in_segments() { [ "$(on b nstat -saz TcpInSegs | awk '/InSegs/ { print $2 }')" -gt "$before" ]; }
check "the octets arrive" retry 5 in_segments
check "they are queued" on b sh -c 'ss -Htn "sport = :8080" | awk "\$2 > 0 { found = 1 } END { exit !found }"'
# Then alice's is back as if nothing had been.
sa_delete a b 9
manual_sa a b 7 alice bob
use_reqid update 7
tell srv accept
sleep 1.5
silent srv
want_refusal b ambiguous-peer
expect_eq "nothing of it in clear" "$(clear_octets wire canary)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
