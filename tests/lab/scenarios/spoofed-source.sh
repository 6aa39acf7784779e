# Octets with one peer's address under another peer's SA (the kernel asks only for the SPI): never read as the first's.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" 8080 alice carol
# SAs by `latchkey sa`, whose selectors name the peer's own address and nothing else.
for secret in alice carol; do head -c 32 /dev/urandom >"$LAB/$secret.secret"; chmod 600 "$LAB/$secret.secret"; done
add_sa() { # add_sa HOST LOCAL REMOTE REQID ID PEER-ID SECRET
  on "$1" latchkey sa add --secret-file "$LAB/$7.secret" --local "$2" --remote "$3" --reqid "$4" --id "$5" --peer-id "$6" ||
    fail "latchkey sa on $1"
}
add_sa a 10.9.0.1 10.9.0.2 7 alice bob alice
add_sa b 10.9.0.2 10.9.0.1 7 bob alice alice
add_sa b 10.9.0.2 10.9.0.3 9 bob carol carol
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'listen 0.0.0.0 8080'
expect srv ok

# a has no Latchkey, but carol's key: what it sends to b goes under the SA that its SPD names.
key=$(ip -n b xfrm state | grep -A3 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.*aead /aead /p')
spi=$(ip -n b xfrm state | grep -A1 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.* spi \(0x[0-9a-f]*\) .*/\1/p')
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 9 mode transport replay-window 32 $key
use_reqid() { # use_reqid ADD-OR-UPDATE REQID
  ip -n a xfrm policy "$1" src 10.9.0.1 dst 10.9.0.2 proto tcp dport 8080 dir out tmpl proto esp reqid "$2" mode transport &&
    ip -n a xfrm policy "$1" src 10.9.0.2 dst 10.9.0.1 proto tcp sport 8080 dir in tmpl proto esp reqid 0 mode transport ||
    fail "no policy on a"
}
segments() { on b nstat -saz TcpInSegs | awk '/InSegs/ { print $2 }'; }
more_than() { [ "$(segments)" -gt "$1" ]; }

# After accept: the connection is pinned to alice's SA.
use_reqid add 7
sock a pinned 'connect 10.9.0.2 8080' 'send canary-alice'
expect pinned ok
expect pinned ok
want srv accept 10.9.0.1
want srv recv canary-alice
use_reqid update 9
before=$(esp_packets wire a b)
want pinned 'send canary-carol-late' ok
tell srv recv
sleep 1
check "it was sent" [ "$(esp_packets wire a b)" -gt "$before" ]
silent srv
use_reqid update 7
expect srv canary-carol-late # sent again by TCP, under alice's own

# Before accept: what is queued must not be taken for alice's.
sock a queued 'connect 10.9.0.2 8080'
expect queued ok
use_reqid update 9
before=$(segments)
want queued 'send canary-carol-early' ok
retry 3 more_than "$before"
check "the octets arrive at b" more_than "$before"
dropped=$(on b sh -c 'cat /proc/net/xfrm_stat' | awk '/XfrmInStateMismatch/ { print $2 }')
check "and are dropped there ($dropped)" [ "${dropped:-0}" -gt 0 ]
want srv accept 10.9.0.1
tell srv recv
sleep 1
silent srv
use_reqid update 7
expect srv canary-carol-early # sent again by TCP, under alice's own
expect_eq "nothing in clear" "$(clear_octets wire canary)" 0
