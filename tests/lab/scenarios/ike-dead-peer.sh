# The peer's host dies: what charon finds out (DPD) breaks the latch as peer-dead, not as a lost SA.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

key_policies
IKE_DPD=2 ike a
ike b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1' 'timeout 60'
expect cli ok
expect cli canary-1
expect cli ok
tell cli recv
on b ip link set eth0 down
expect cli ECONNRESET 40
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* peer-dead'
wire_protected wire a b canary
