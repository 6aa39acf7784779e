# Reauthentication (the peer proves itself anew, with new SAs for the old ones), pinned by reqid and by SPI, begun by either end: the latch goes on with the same peer.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

proved() { grep -c "IKE_SA a-b\[.*established between" "$LAB/charon-a.log"; }
more_than() { [ "$(proved)" -gt "$1" ]; }
one_only() { [ "$(ike_sas a | grep -c '^a-b ')" = 1 ]; }

key_policies
ike a b
start_broker a
start_broker b
capture wire
for pin in reqid spi; do
  key_policies
  pins $pin
  serve b "srv-$pin" "$LAB/in.toml" :: 8080
  latched a "cli-$pin" "$LAB/out.toml" 'connect 10.9.0.2 8080' "echo canary-$pin"
  expect "cli-$pin" ok
  expect "cli-$pin" "canary-$pin"
  want_field a ESTABLISHED pin $pin
  id=$(field a ESTABLISHED id)
  trickles "cli-$pin"
  for host in a b a; do
    before=$(proved)
    retry 20 on $host swanctl --rekey --ike a-b --reauth >/dev/null || fail "$host cannot reauthenticate"
    retry 20 more_than "$before" || fail "$host does not reauthenticate"
    retry 20 one_only || fail "the SAs do not settle: $(ike_sas a)"
  done
  silent "cli-$pin"
  trickled "cli-$pin"
  echo "good: three times under pin = $pin: the longest wait of a block is $REPLY ms"
  want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
  want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
  want_field a ESTABLISHED id "$id"
  want_field a ESTABLISHED auth pubkey
  end "cli-$pin"
  end "srv-$pin"
done
wire_protected wire a b canary
expect_eq "nobody says that it broke" "$(cat "$LAB"/broker-?.log | grep -c 'BROKEN')" 0
