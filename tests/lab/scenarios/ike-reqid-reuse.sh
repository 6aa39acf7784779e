# charon allots the reqid: another peer comes to the address and gets the same one, after the first has gone or beside it. The latch of the first breaks, and nothing goes to the other.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

export IKE_REQID=dynamic
key_policies
IKE_REMOTE='*.lab' ike a
start_broker a
capture wire
printf -v block 'canary-%0600d' 0
# b has strongSwan alone: whoever is there would go on with the connection.
sock b srv 'listen :: 8080' serve
expect srv ok
expect srv ok
for how in gone beside; do
  ike b
  latched a cli-$how "$LAB/out.toml" 'timeout 90' 'connect 10.9.0.2 8080' "echo $block"
  expect cli-$how ok
  expect cli-$how ok
  expect cli-$how "$block"
  want_field a ESTABLISHED pin spi
  reqid=$(field a ESTABLISHED reqid)
  theirs=$(spi_out a b.lab)
  check "data leaves under the SPI of b, $theirs" [ "$(under "$theirs" wire | wc -l)" -gt 0 ]
  [ $how = beside ] || ike_down a a-b
  want cli-$how "send $block" ok # by TCP again and again, from here on, where nobody answers
  tell cli-$how recv
  [ $how = gone ] || expect cli-$how "$block"
  [ $how = gone ] || tell cli-$how recv
  IKE_ID=mallory ike b
  check "mallory comes to the address of b" ike_up b a-b
  expect_eq "and gets the same reqid" "$(ike_sas a | awk '$5 == "mallory.lab" { print $2 }')" "$reqid"
  other=$(spi_out a mallory.lab)
  expect cli-$how ECONNRESET 90
  want cli-$how "send $block" ECONNRESET
  want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa'
  expect_eq "data under the SPI of mallory, $other" "$(under "$other" wire | wc -l)" 0
  end cli-$how
  [ $how = beside ] || check "all go" ike_down a a-b
  no_latches() { _shows a '.*' 0; }
  [ $how = beside ] || retry 60 no_latches || fail "the broken latch does not go"
done
wire_protected wire a b canary
