# charon killed, with its SAs left or flushed; the broker killed; both at once: each latch survives verified or breaks with its reason, and nothing is ever in clear.
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

settled() { vouched || _shows_some a "BROKEN [0-9]+ 10\\.9\\.0\\.2 b\\.lab .* $1"; }
goes_on() { # goes_on NAME REASON: it is verified again and goes on, or is broken for this reason
  check "$1 is verified again, or broken as $2" retry 60 settled "$2"
  if _shows_some a "$one_latch"; then
    echo "good: it goes on"
    want "$1" "echo canary-again-$1" "canary-again-$1"
  else
    echo "good: it is broken"
    want "$1" "send canary-broken-$1" ECONNRESET
  fi
  end "$1"
}

fresh one
ike_kill a
want one 'echo canary-while' canary-while
ike_restart a
check "the broker finds the new charon" retry 20 connected 2
goes_on one km-lost

fresh two
ike_kill a
on a ip xfrm state flush
on a ip xfrm policy flush
ike_restart a
retry 20 ike_up a a-b
goes_on two no-sa

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
# Neither knows of whom the SAs in the kernel are.
goes_on three '(km-lost|conflict-sa)'

# Nobody can vouch for it again: b's charon is gone, though its SAs still carry the connection.
fresh four
ike_kill b
ike_kill a
want four 'echo canary-four-again' canary-four-again
ike_restart a
tell four recv
expect four ECONNRESET 60
wait_state a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* km-lost' 5
wire_protected wire a b canary
