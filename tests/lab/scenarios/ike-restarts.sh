# charon killed, with its SAs left or flushed; the broker killed; both at once: each latch is verified again and goes on, or breaks as km-lost where nobody is left to vouch for its peer, and nothing is ever in clear.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

fresh() { # fresh NAME: a latched connection
  latched a "$1" "$LAB/out.toml" 'timeout 90' 'connect 10.9.0.2 8080' "echo canary-$1"
  expect "$1" ok
  expect "$1" ok
  expect "$1" "canary-$1"
}
# Its SAs are such as the charon that runs now has: somebody vouches for the peer.
vouched() { ike_sas a | grep -qF " $(field a '^ESTABLISHED' spi_in | sed 's/^0x//') "; }
connected() { [ "$(grep -c 'charon is connected' "$LAB/broker-a.log")" -ge "$1" ]; }
one_latch='ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'

start_key_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080

# survives NAME: it is verified again, by SAs that the charon of now has made, and goes on.
survives() {
  check "$1 is verified again" retry 30 vouched
  want_latches a 1 "$one_latch"
  want "$1" "echo canary-again-$1" "canary-again-$1"
  end "$1"
}

fresh one
ike_kill a
want one 'echo canary-while' canary-while
ike_restart a
check "the broker finds the new charon" retry 20 connected 2
survives one

# Nobody else asks for the SAs that went meanwhile.
fresh two
ike_kill a
on a ip xfrm state flush
on a ip xfrm policy flush
ike_restart a
survives two

fresh three
kill_broker a
want three 'echo canary-no-broker' canary-no-broker
start_broker a
want_latches a 1 "$one_latch"
check "verified at once" retry 5 vouched
want three 'echo canary-broker' canary-broker
kill_broker a
ike_kill a
want three 'echo canary-neither' canary-neither
ike_restart a
start_broker a
# The journal vouches for the SAs in the kernel until the new charon has made others.
want_latches a 1 "$one_latch"
survives three

# The peer's charon is gone, though its SAs still carry the connection: nobody makes others.
fresh four
ike_kill b
kill_broker a
ike_kill a
want four 'echo canary-four' canary-four
ike_restart a
start_broker a
want_latches a 1 "$one_latch"
want four 'echo canary-journal' canary-journal
tell four recv
expect four ECONNRESET 60
wait_state a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* km-lost' 5
want_logged a "the end is logged" 'ESTABLISHED -> BROKEN'
check "for no other reason" [ "$(grep -c 'ESTABLISHED -> BROKEN' "$LAB/broker-a.log")" = 1 ]

wire_protected wire a b canary
