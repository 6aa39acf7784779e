# A program that closes every descriptor it did not open, and then connects, listens and is broken.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
for closing in close-all close-range; do
  once_latched a "$LAB/out.toml" 'timeout 5' $closing 'connect 10.9.0.2 8080' "echo canary-$closing-1" \
    'use 2' $closing 'connect fd00::2 8080' "echo canary-$closing-2" 'in-child connect 10.9.0.2 8080' >"$LAB/said"
  expect_eq "after $closing" "$(cat "$LAB/said")" "= timeout: ok
= $closing: ok
= connect: ok
= echo: canary-$closing-1
= use: ok
= $closing: ok
= connect: ok
= echo: canary-$closing-2
= in-child: connect: ok"
done
latched b closer "$LAB/in.toml" close-all 'listen :: 8081' accept 'send canary-close-listener' recv
latched a cli "$LAB/out.toml"
expect closer ok
expect closer ok
want cli 'connect 10.9.0.2 8081' ok
expect closer ::ffff:10.9.0.1
expect closer ok
want cli recv canary-close-listener
# The break is seen by one that has closed the page's descriptor too.
impostor
expect closer ECONNRESET
want_latches b 1 'BROKEN 8081 .* conflict-sa'
expect_eq "no canary in clear" "$(clear_octets wire canary-close)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
