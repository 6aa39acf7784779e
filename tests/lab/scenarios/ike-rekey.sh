# Twenty rekeys during a transfer, pinned by reqid and by SPI: every octet arrives, the latch stays as it is.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

rekeys() { # rekeys COUNT: begun in turn by either end
  local i host
  for ((i = 0; i < $1; i++)); do
    host=a
    [ $((i % 2)) = 0 ] || host=b
    on "$host" swanctl --rekey --child a-b >/dev/null || fail "rekey $i is refused"
    retry 10 grown "$((i + 1))" || fail "rekey $i does not come about"
  done
}
grown() { [ "$(grep -c 'CHILD_SA a-b.*established' "$LAB/charon-a.log")" -ge $(($1 + made)) ]; }

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
  spi=$(field a ESTABLISHED spi_in)
  made=$(grep -c 'CHILD_SA a-b.*established' "$LAB/charon-a.log")
  tell "cli-$pin" 'trickle 400 20000'
  rekeys 20
  answer "cli-$pin" 120
  echo "good: under pin = $pin: ${REPLY#*: }"
  [[ $REPLY == *"400 whole"* ]] || fail "not every block came back"
  want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
  [ "$(field a ESTABLISHED spi_in)" != "$spi" ] || fail "the SPI shown is the old one"
  end "cli-$pin"
  end "srv-$pin"
done
wire_protected wire a b canary
expect_eq "nobody says that it broke" "$(cat "$LAB"/broker-?.log | grep -c 'BROKEN')" 0
