# on_break = "suspend", as for a BGP daemon: an impostor freezes the connection, nothing moves, the socket stays open; it goes on when the first peer is back alone. And latchkey break and resume.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

key_policies 'on_break = "suspend"'
IKE_REMOTE='*.lab' ike a
ike b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1' 'timeout 60'
expect cli ok
expect cli canary-1
expect cli ok
want_field a ESTABLISHED disposition suspend

IKE_ID=mallory ike b
check "mallory has an SA with a" ike_up b a-b
wait_state a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* conflict-sa' 10
frozen=$(esp_packets wire a b)
want cli 'send canary-2' ok
tell cli recv
sleep 3
silent cli
expect_eq "nothing moves while it is suspended" "$(($(esp_packets wire a b) - frozen))" 0

ike_down a a-b
ike b
check "b is back" is_up a a-b
wait_state a 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -' 10
wait_state b 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab .* -' 10
expect cli canary-2 60

id=$(field a ESTABLISHED id)
check "latchkey break" on a latchkey break "$id"
wait_state a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* admin' 5
want cli 'send canary-3' ok
tell cli recv
sleep 2
silent cli
check "latchkey resume" on a latchkey resume "$id"
wait_state a 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab .* -' 5
expect cli canary-3 60
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
