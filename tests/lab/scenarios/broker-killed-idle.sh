# A broker killed while the program is away: what nobody holds any more goes with the next start.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
pair_connects 8080 :: 10.9.0.2 canary-idle
kill_broker b
kill_broker a
end cli8080
end srv8080
check "guards were left" [ "$(ip -n b xfrm policy | grep -c '^src')" -gt 0 ]
start_broker b
start_broker a
want_latches a 0 '.*'
want_latches b 0 '.*'
stop_pair
