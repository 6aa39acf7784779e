#!/bin/bash
# This folder's server and three clients on hosts of the lab: alice's is a, the server b, carol's c.
set -u
# shellcheck source=../../tests/lab/programs/product.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../tests/lab/programs/product.sh"
: "${greeter:=authorize-c}" "${folder:=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"

manual_sa a b 7 alice bob
manual_sa c b 8 carol bob
for host in a b c; do start_broker "$host"; done
capture wire
# shellcheck disable=SC2086
bg b greeter latchkey run -p "$folder/server.toml" -- $greeter 7000 alice
wait_listen b 7000

greeted() { # greeted HOST ADDRESS
  on "$1" latchkey run -p "$folder/client.toml" -- socat -T 10 - "TCP:$2:7000" </dev/null
}
expect_eq "alice is welcome" "$(greeted a 10.9.0.2)" "200 welcome, alice (manual, aes-gcm-16, 256 bits)"
expect_eq "and over IPv6" "$(greeted a '[fd00::2]')" "200 welcome, alice (manual, aes-gcm-16, 256 bits)"
expect_eq "carol is not, protected though she is" "$(greeted c 10.9.0.2)" "403 not for carol"
expect_eq "nothing in clear" "$(clear_octets wire welcome)" 0
check "but under ESP" [ "$(esp_packets wire a b)" -gt 0 ]
want_latches b 1 'LISTENER 7000 .*'

# Started without the launcher the question fails, and a failed question is a no.
# shellcheck disable=SC2086
bg b plain $greeter 7001 alice
wait_listen b 7001
expect_eq "without Latchkey there is nobody" "$(on c socat -T 10 - TCP:10.9.0.2:7001 </dev/null)" \
  "403 nobody is behind this connection"
