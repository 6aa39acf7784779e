# A TCP connection over IPv4, latched at both ends: who the peer is, and nothing but ESP on the wire.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 0.0.0.0 10.9.0.2 canary-v4
pair_listed 8080 4
wire_protected wire a b canary-v4

# Closed latches go, and with the last listener everything of ours goes.
want cli8080 close ok
want_latches a 0 '.*'
want_latches b 1 '.*'
end srv8080
want_latches b 0 '.*'
stop_pair
expect_eq "still nothing but ESP" "$(non_esp wire a b)" 0
