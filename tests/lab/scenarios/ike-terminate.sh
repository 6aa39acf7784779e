# An administrator closes the IKE_SA: the SA is gone for good, and the program hears ECONNRESET long before TCP gives up.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

start_key_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1'
expect cli ok
expect cli canary-1
tell cli 'timeout 60'
answer cli
tell cli recv
ike_down a a-b
expect_eq "the SAs are gone" "$(on a ip xfrm state | grep -c 'reqid 65537')" 0
expect cli ECONNRESET 40
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* no-sa'
# A new connection is a new exchange.
latched a cli2 "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-2'
expect cli2 ok
expect cli2 canary-2
wire_protected wire a b canary
