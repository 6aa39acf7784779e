# charon killed, with its SAs left or flushed; the broker killed; both at once: each latch survives verified or breaks with its reason, and nothing is ever in clear.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

fresh() { # fresh NAME: a latched connection
  latched a "$1" "$LAB/out.toml" 'connect 10.9.0.2 8080' "echo canary-$1" 'timeout 60'
  expect "$1" ok
  expect "$1" "canary-$1"
  expect "$1" ok
}

start_key_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080

# Killed, its SAs stay: the latch goes on at once, and is verified again under the new charon.
fresh one
ike_kill a
want one 'echo canary-while' canary-while
ike_restart a
retry 20 grep -q 'key manager' "$LAB/broker-a.log"
want one 'echo canary-again' canary-again
sleep 17
latches a
want_latches a 1 '(ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -|BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* km-lost)'
end one

# Killed and flushed.
fresh two
ike_kill a
on a ip xfrm state flush
on a ip xfrm policy flush
ike_restart a
check "new SAs" retry 20 ike_up a a-b
want two 'echo canary-flushed' canary-flushed
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -'

# The broker, then both.
kill_broker a
want two 'echo canary-no-broker' canary-no-broker
start_broker a
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -'
want two 'echo canary-broker' canary-broker
kill_broker a
ike_kill a
want two 'echo canary-neither' canary-neither
ike_restart a
start_broker a
sleep 1
want two 'echo canary-both' canary-both
sleep 17
latches a
want_latches a 1 '(ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -|BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* km-lost)'
fresh three
wire_protected wire a b canary
