# The first connection to a peer without an SA: the key exchange begins at once, and both ends latch who it proved to be.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

start_key_pair
capture wire
expect_eq "no SA yet" "$(on a ip xfrm state | grep -c '^src')" 0
on a latchkey explain -p "$LAB/out.toml" --out tcp 10.9.0.2 8080 >"$LAB/said"
expect_eq "explain says that it will be served" $? 0
check "by which child" grep -q '^decision: PROTECT: an SA will be negotiated (child "a-b" of connection "a-b")$' "$LAB/said"
on a latchkey explain -p "$LAB/out.toml" --out tcp 10.9.0.9 8080 >"$LAB/said"
expect_eq "and that another would not" $? 1
check "for want of a child" grep -q '^decision: REFUSED: no-child (ENOKEY)$' "$LAB/said"
check "what to add" grep -q '^to change: a child in swanctl.conf' "$LAB/said"
latched b srv "$LAB/in.toml" 'listen :: 8080' serve
expect srv ok
expect srv ok
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' elapsed
expect cli ok
answer cli
took=${REPLY##*: }
exchange=$(on a swanctl --list-sas --raw | grep -c 'a-b ') # charon is there
[ "$exchange" -gt 0 ] || fail "charon has no SA"
at() { date -d "$(grep -m 1 -e "$1" "$LAB/charon-a.log" | cut -d ' ' -f 1)" +%s%3N; }
exchange=$(($(at 'CHILD_SA a-b.* established') - $(at 'initiating IKE_SA a-b')))
[ $exchange -gt 0 ] && [ $exchange -le "$took" ] || fail "the exchange took $exchange ms, connect $took ms"
echo "good: connected after $took ms, of which $exchange ms are the exchange"
want cli 'echo canary-4' canary-4
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
want_field a ESTABLISHED auth pubkey
want_field a ESTABLISHED reqid 65537
want_field a ESTABLISHED pin reqid
want_field a ESTABLISHED outer.remote.address 10.9.0.2
want_field a ESTABLISHED nat.remote False

# IPv6 has an exchange of its own; and the second connection finds the SA.
latched a cli6 "$LAB/out.toml" 'connect fd00::2 8080' 'echo canary-6' 'use second' 'connect fd00::2 8080' elapsed
expect cli6 ok
expect cli6 canary-6
expect cli6 ok
expect cli6 ok
answer cli6
echo "good: with the SA there it takes ${REPLY##*: } ms"
want_latches a 2 'ESTABLISHED [0-9]+ fd00::2 b\.lab a\.lab transport aes-gcm-16:256 -'

# Many at once begin one exchange.
ike_down a a-b
end cli
for i in 1 2 3 4 5; do latched a "many$i" "$LAB/out.toml" 'connect 10.9.0.2 8080' "echo canary-m$i"; done
for i in 1 2 3 4 5; do
  expect "many$i" ok
  expect "many$i" "canary-m$i"
done
expect_eq "one pair of SAs for five connections" "$(ike_sas a | grep -c '^a-b ')" 1
wire_protected wire a b canary
control wire
