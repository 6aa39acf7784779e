# An impostor's SA appears in the middle of a busy transfer: both ends get ECONNRESET, nothing is in clear.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
for family in 4 6; do
  latched b "srv$family" "$LAB/in.toml" "listen :: 808$family" accept
  latched a "cli$family" "$LAB/out.toml"
  expect "srv$family" ok
done
want cli4 'connect 10.9.0.2 8084' ok
want cli6 'connect fd00::2 8086' ok
answer srv4
answer srv6
wire_protected wire a b canary-busy
for family in 4 6; do
  tell "srv$family" sink
  tell "cli$family" 'transfer canary-busy'
done
sleep 1
for name in cli4 srv4 cli6 srv6; do silent $name; done
impostor
for name in cli4 srv4 cli6 srv6; do expect $name ECONNRESET; done
for family in 4 6; do
  ask "srv$family" sunk
  check "it was busy over v$family: ${REPLY#*: } octets" [ "${REPLY#*: }" -gt 100000 ]
done
want_latches a 2 'BROKEN .* conflict-sa'
want_latches b 2 'BROKEN .* conflict-sa'
expect_eq "no canary in clear" "$(clear_octets wire canary-busy)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
