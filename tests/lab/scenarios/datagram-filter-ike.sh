# charon's SAs, with ESN and in UDP, are tagged in place: charon does not notice, its SAs stay as they are and serve on, and a rekey brings one that bears no tag.
set -u
# shellcheck source=../programs/probe.sh
. "$(dirname "$0")/../programs/probe.sh"

IKE_CONN='encap = yes' IKE_ESP=aes256gcm16-x25519-esn ike a b
check "a-b" ike_up a a-b
in_spi() { printf '0x%s' "$(ike_sas a | awk '$1 == "a-b" && $3 == "INSTALLED" { sub(/^0x/, "", $6); print $6 }')"; }
start_probe a
is "bind 0.0.0.0 5000" ok
is "filter 0.0.0.0/0=tag" ok
is "admit 10.9.0.2 0 0x70000" ok
spi=$(in_spi)
send b 10.9.0.1 untagged
is recv nothing
sas=$(ike_sas a)
before=$(shown $spi)
check "in UDP" grep -q 'encap type espinudp sport 4500 dport 4500' <<<"$before"
check "with ESN" grep -q 'flag.*esn' <<<"$before"
check "in use" grep -q 'seq-hi 0x0, seq 0x1,' <<<"$before"
made=$(ask "mark $spi")
ask events >/dev/null
is "tag $spi 0x70000 0x7fff0000" ok
expect_eq "the event tells the SA as it is" "$(ask events)" "$spi 0x70000/0x7fff0000 ${made#* }"
expect_eq "nothing else of it changed" "$(shown $spi)" "$before"
capture wire
for number in 1 2 3; do
  send b 10.9.0.1 "canary-$number"
  is recv "canary-$number from 10.9.0.2"
done
expect_eq "nothing in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP in UDP" "$(non_esp wire a b)" 0
capture_stop wire
check "the replay state goes on" grep -q 'seq-hi 0x0, seq 0x4,' <(shown $spi)
expect_eq "charon has what it had" "$(ike_sas a)" "$sas"
check "an answer" on a ping -c 1 -W 2 10.9.0.2

check "rekeyed" on a swanctl --rekey --child a-b
changed() { [ "$(in_spi)" != "$spi" ] && [ "$(in_spi)" != 0x ]; }
retry 10 changed || fail "no other SA: $(ike_sas a)"
next=$(in_spi)
settled() { [ "$(on a ip xfrm state list spi "$spi" | wc -l)" = 0 ]; }
retry 10 settled || fail "the old SA stays"
marks=$(ask "mark $next")
expect_eq "the new one is not tagged" "${marks% *}" 0x0/0x0
send b 10.9.0.1 after-rekey
is recv nothing
is "tag $next 0x70000 0x7fff0000" ok
send b 10.9.0.1 tagged-anew
is recv "tagged-anew from 10.9.0.2"
check "closed by charon" ike_down a a-b
expect_eq "no SA stays behind" "$(on a ip xfrm state)" ""
is "tag $next 0x80000 0x7fff0000" "no such SA"
end_probe
