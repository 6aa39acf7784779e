# A TCP connection over IPv6, latched at both ends: who the peer is, and nothing but ESP on the wire.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 ::only fd00::2 canary-v6
pair_listed 8080 6
want cli8080 close ok
end srv8080
want_latches a 0 '.*'
want_latches b 0 '.*'
wire_protected wire a b canary-v6
stop_pair
