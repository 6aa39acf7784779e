# The window of pin = "reqid": what a program that sends all the time sends under the SA of an impostor until its latch breaks, measured; none under pin = "spi".
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

IKE_REMOTE='*.lab' ike a
start_broker a
capture wire
for pin in reqid spi; do
  key_policies
  pins $pin
  ike b
  # b has strongSwan alone: whoever is there goes on with the connection.
  sock b "srv-$pin" 'listen :: 8080' accept 'timeout 120' sink
  expect "srv-$pin" ok
  latched a "cli-$pin" "$LAB/out.toml" 'connect 10.9.0.2 8080' 'timeout 120'
  expect "cli-$pin" ok
  expect "cli-$pin" ok
  want_field a ESTABLISHED pin $pin
  theirs=$(spi_out a b.lab)
  tell "cli-$pin" 'transfer canary'
  IKE_ID=mallory ike b
  silent "cli-$pin"
  check "mallory has an SA with a" ike_up b a-b
  other=$(spi_out a mallory.lab)
  expect "cli-$pin" ECONNRESET 60
  wait_state a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa' 13
  check "data left under the SPI of b" [ "$(under "$theirs" wire | wc -l)" -gt 10 ]
  sent=$(under "$other" wire | awk '{ if (!n++) first = $1; last = $1; octets += $NF } END { printf "%d %d %.0f", n, octets, (last - first) * 1000 }')
  read -r count octets ms <<<"$sent"
  echo "good: under pin = $pin: $count packets, $octets octets of ESP with data to the impostor, in $ms ms"
  if [ $pin = reqid ]; then
    check "the window ends" [ "$ms" -lt 5000 ]
    # TCP would send again and again.
    sleep 2
    expect_eq "and stays shut" "$(under "$other" wire | wc -l)" "$count"
  else
    expect_eq "nothing under pin = spi" "$count" 0
  fi
  end "cli-$pin"
  end "srv-$pin"
  ike_down a a-b
done
wire_protected wire a b canary
