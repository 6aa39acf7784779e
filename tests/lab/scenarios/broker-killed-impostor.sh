# An impostor's SA comes while no broker watches: the next one breaks what it may have touched.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
pair_connects 8080 :: 10.9.0.2 canary-unwatched
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
kill_broker a
kill_broker b
tell cli8080 recv
tell six read
impostor
sleep 1
silent cli8080
start_broker a
start_broker b
expect cli8080 ECONNRESET
expect six ECONNRESET
want_latches a 2 'BROKEN .* conflict-sa'
want_refusal b conflict-sa
check "the server is told, twice" retry 5 test "$(grep -c 'error ECONNRESET' "$LAB/srv8080.log")" = 2
expect_eq "no canary in clear" "$(clear_octets wire canary-unwatched)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
