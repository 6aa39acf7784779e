# A datagram without a connection to a peer without keys: a blocking send waits for them, one that does not block soon says that they are missing, and not EAGAIN; rekeys go unnoticed, in between and in the middle of a stream, and somebody else's keys are no keys.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }
sends() { # sends NAME TEXT: it says ok to a send
  ask "$1" "sendto 10.9.0.2 8080 $2"
  [ "${REPLY#*: }" = ok ]
}

# heard NAME ADDRESS TEXT: sent, and again when nobody answers, as who speaks UDP does: what comes before the
# server's broker has seen to a new SA is dropped.
heard() {
  want "$1" "sendto $2 8080 $3" ok
  ask srv udp-answer
  for _ in 1 2 3; do
    [ "${REPLY#*: }" = timeout ] || break
    want "$1" "sendto $2 8080 $3" ok
    ask srv udp-answer
  done
  expect_eq "the server hears" "${REPLY#*: }" "$3"
  want "$1" recv "$3"
}

key_policies
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
export IKE_CHARON='retransmit_tries = 6' # about 30 s
start_key_pair
capture wire
latched b srv "$LAB/in.toml" 'udp-bind :: 8080'
expect srv ok
want srv 'timeout 3' ok
for address in 10.9.0.2 fd00::2; do
  latched a "cli-$address" "$LAB/out.toml" 'timeout 60' "udp-new $address"
  expect "cli-$address" ok
  expect "cli-$address" ok
  heard "cli-$address" "$address" canary-waited
done

# Rekeyed by either end, in between and while it is under way.
for host in a b; do
  on $host swanctl --rekey --child a-b >/dev/null || fail "no rekey"
  for i in 1 2 3; do
    heard cli-10.9.0.2 10.9.0.2 "canary-$host$i"
  done
done

# And in the middle of a stream, by either end in turn: each send is done, and little is lost, by what comes under a new SA
# before the server's broker has seen to it.
tell srv "udp-heard $LAB/stop canary-stream"
tell cli-10.9.0.2 "udp-paced $LAB/stop 10.9.0.2 8080 canary-stream"
spis() {
  clear_octets wire none >/dev/null # what was sent until now is in the file
  tcpdump -n -r "$LAB/wire.pcap" 'src host 10.9.0.1 and ip proto 50' 2>/dev/null | grep -o 'spi=0x[0-9a-f]*' | sort -u | wc -l
}
moved() { [ "$(spis)" -gt "$before" ]; }
for host in a b a b; do
  before=$(spis)
  # Refused while the one before is still being cleared away.
  retry 20 on $host swanctl --rekey --child a-b >/dev/null || fail "no rekey by $host"
  check "it goes on under the SA of $host's rekey" retry 20 moved
done
touch "$LAB/stop"
answer cli-10.9.0.2
[[ $REPLY =~ ^udp-paced:\ ok:\ ([0-9]+)$ ]] || fail "not every send is done: $REPLY"
sent=${BASH_REMATCH[1]}
answer srv
lost=$((sent - ${REPLY#*: }))
echo "good: of $sent, 10 ms apart, $lost were lost in four rekeys"
check "at most 25 for each" [ $lost -le 100 ]

# Without keys, and nobody who answers: a socket that does not block is not kept.
ike_down a a-b
charon_b STOP
latched a quick "$LAB/out.toml" 'udp-new 10.9.0.2' 'blocking 0'
expect quick ok
expect quick ok
want quick 'sendto 10.9.0.2 8080 canary-quick' ETIMEDOUT
ask quick elapsed
check "in ${REPLY#*: } ms" [ "${REPLY#*: }" -lt 1000 ]
charon_b CONT
retry 20 sends quick canary-late || fail "it is not sent when there are keys again"
want quick 'blocking 1' ok
heard quick 10.9.0.2 canary-late
wire_protected wire a b canary

# Somebody else answers.
IKE_ID=mallory ike b
ike_down a a-b
expect_eq "the wrong peer" "$(once_latched a "$LAB/out.toml" 'udp-new 10.9.0.2' 'sendto 10.9.0.2 8080 canary-wrong' | tail -n 1)" \
  "= sendto: EKEYREJECTED"
expect_eq "nothing in clear" "$(clear_octets wire canary)" 0
