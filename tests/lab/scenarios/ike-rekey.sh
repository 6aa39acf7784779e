# Twenty rekeys during a transfer, begun by either end, pinned by reqid and by SPI: every block arrives, the latch stays as it is.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

made() { grep -c 'CHILD_SA a-b.*established' "$LAB/charon-a.log"; }
more_than() { [ "$(made)" -gt "$1" ]; }
rekeys() { # rekeys COUNT: each end in turn
  local i host before
  for ((i = 0; i < $1; i++)); do
    host=a
    [ $((i % 2)) = 0 ] || host=b
    before=$(made)
    # Refused while the one before is still being cleared away.
    retry 20 on "$host" swanctl --rekey --child a-b >/dev/null || fail "rekey $i is refused"
    retry 20 more_than "$before" || fail "rekey $i does not come about"
  done
}

key_policies
ike a b
start_broker a
start_broker b
capture wire
# A program without a latch beside it, under the same SAs by the SPD: what the rekeys cost by themselves.
spd_port a "10.9.0.1 10.9.0.2" 8090 theirs esp 65537
spd_port b "10.9.0.2 10.9.0.1" 8090 ours esp 65537
ike_up a a-b
sock b plain 'listen 10.9.0.2 8090' serve
expect plain ok
expect plain ok
sock a bare 'connect 10.9.0.2 8090' 'echo canary-bare'
expect bare ok
expect bare canary-bare
for pin in reqid spi; do
  key_policies
  pins $pin
  serve b "srv-$pin" "$LAB/in.toml" :: 8080
  latched a "cli-$pin" "$LAB/out.toml" 'connect 10.9.0.2 8080' "echo canary-$pin"
  expect "cli-$pin" ok
  expect "cli-$pin" "canary-$pin"
  want_field a ESTABLISHED pin $pin
  id=$(field a ESTABLISHED id)
  spi=$(field a ESTABLISHED spi_in)
  # As long as some rekeys take, with none: then with them.
  trickles "cli-$pin"
  trickles bare
  sleep 3
  trickled bare
  still_bare_rate=$RATE
  trickled "cli-$pin"
  still=$REPLY still_rate=$RATE
  trickles "cli-$pin"
  trickles bare
  rekeys 20
  silent "cli-$pin"
  silent bare
  trickled bare
  bare=$REPLY bare_rate=$RATE
  trickled "cli-$pin"
  echo "good: 20 rekeys under pin = $pin: the longest wait of a block is $REPLY ms, of a bare one $bare ms, without any rekey $still ms"
  echo "good: $still_rate octets/ms without rekeys, $RATE with them, where the bare one has $still_bare_rate and $bare_rate"
  # A rekey costs the latched flow what it costs the bare one beside it, which has the same CPU and wire.
  if [ $pin = reqid ]; then
    check "throughput across rekeys is the bare one's" [ $((RATE * 2)) -gt "$bare_rate" ]
  fi
  # One CPU does everything here, charon's arithmetic above all: the bare one says what that costs.
  [ "$REPLY" -lt $((bare + 2000)) ] || fail "a stall of $REPLY ms, where the bare one waits $bare ms"
  want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
  want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
  want_field a ESTABLISHED id "$id"
  [ "$(field a ESTABLISHED spi_in)" != "$spi" ] || fail "the SPI shown is the old one"
  expect_eq "the SPIs shown are charon's" "$(ike_sas a | awk '{ print "0x" $6 }' | grep -c "$(field a ESTABLISHED spi_in)")" 1
  end "cli-$pin"
  end "srv-$pin"
done
wire_protected wire a b canary
expect_eq "nobody says that it broke" "$(cat "$LAB"/broker-?.log | grep -c 'BROKEN')" 0
