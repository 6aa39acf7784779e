# The first connection to a peer costs the key exchange and no retransmission more, however late charon tells the responder's broker whose the new SA is: the answer to the SYN waits for the name, and nothing of that is left behind.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

# lost: SYNs that a has sent again.
lost() { on a awk '/^TcpExt/ && !n { n = split($0, names) } /^TcpExt/ { split($0, values) } END { for (i in names) if (names[i] == "TCPSynRetrans") print values[i] }' /proc/net/netstat; }
unkeyed() { ! ip -n a xfrm state | grep -q '^src' && ! ip -n b xfrm state | grep -q '^src'; }
holds() { ip -n b xfrm policy | grep -qE 'reqid 42949[0-9]{5}'; }
clean() {
  ! holds && ! ip -n b xfrm state | grep -qE 'spi 0x00000000|reqid 42949[0-9]{5}' &&
    [ "$(on b cat /proc/sys/net/core/xfrm_larval_drop)" = 1 ]
}
want_clean() {
  retry 10 clean || fail "left behind: $(ip -n b xfrm policy) $(ip -n b xfrm state) $(on b cat /proc/sys/net/core/xfrm_larval_drop)"
  echo "good: nothing that waited is left at b"
}
# slow_broker MS: b's broker hears of charon so late.
slow_broker() {
  bg b "slow-$1" "${python[@]}" "$programs/slow_vici.py" "/run/slow-$1" /var/run/charon.vici "$1"
  retry 10 on b test -S "/run/slow-$1" || fail "no slow VICI socket"
  bg b broker-b latchkeyd --vici "/run/slow-$1"
  retry 20 grep -qs 'charon is connected' "$LAB/broker-b.log" || fail "b's broker does not start: $(cat "$LAB/broker-b.log")"
}
# first PORT CHILD ADDRESS: a listener of its own, so that nothing of an earlier connection lets the answer go.
first() {
  serve b "srv$1" "$LAB/in.toml" :: "$1"
  latched a "cli$1" "$LAB/out.toml" "connect $3 $1" elapsed "echo canary-$1"
  expect "cli$1" ok
  answer "cli$1"
  echo "good: connected to $3 after ${REPLY##*: } ms"
  expect "cli$1" "canary-$1"
  end "cli$1"
  end "srv$1"
  ike_down a "$2" || fail "no SA to close"
  retry 10 unkeyed || fail "SAs are left: $(ip -n a xfrm state) $(ip -n b xfrm state)"
}
both() { # both PORT: v4, and v6 at the next port
  first "$1" a-b 10.9.0.2
  first $(($1 + 1)) a-b-6 fd00::2
}

policy_in "$LAB/in.toml" '"8080-8099"' a.lab
policy_out "$LAB/out.toml" '"8080-8099"' b.lab
ike a b
start_broker a
start_broker b
capture wire

# As it comes.
for port in 8080 8082 8084; do both $port; done
# One may come before b's broker has heard of the SA at all: nobody can hold back its answer then.
before=$(lost)
check "of six SYNs one was sent again at the most: $before" [ "$before" -le 1 ]
want_clean
stop_broker b

# The name is late.
slow_broker 150
for port in 8088 8090; do both $port; done
again=$(($(lost) - before))
check "of four, although the name was late (all were, if nobody waited): $again" [ "$again" -le 1 ]
want_clean
stop_broker b

# And it is another's, who may not be answered: what waits for him goes nowhere.
slow_broker 1500
policy_in "$LAB/in.toml" '"8080-8099"' c.lab
serve b stranger "$LAB/in.toml" :: 8098
latched a cli "$LAB/out.toml" 'timeout 60' 'connect 10.9.0.2 8098'
expect cli ok
retry 30 holds || fail "nothing is held back for whoever it may be"
want_clean
# He sends his SYN again and again.
sleep 3
silent cli
end cli
want_clean

# A stop leaves nothing, whoever waits.
stop_broker b
wire_protected wire a b canary
control wire
