# Another valid member of the same CA takes the peer's address in mid-connection (RFC 5660, 2.3.2): ECONNRESET, and not an octet to it.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

key_policies
IKE_REMOTE='*.lab' ike a
ike b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1'
expect cli ok
expect cli canary-1
# A remote id that is a pattern does not bind the reqid to anybody.
want_field a ESTABLISHED pin spi
want_field a ESTABLISHED peer_id b.lab

tell cli recv
sleep 0.3
silent cli
IKE_ID=mallory ike b
check "mallory has an SA with a" ike_up b a-b
expect_eq "under the same reqid" "$(ike_sas a | awk '$2 == 65537' | grep -c 'mallory.lab')" 1
expect cli ECONNRESET
want cli 'send canary-2' ECONNRESET
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa'
# The policy wants b.lab, and mallory is somebody else; while both have SAs nobody is served.
latched a new "$LAB/out.toml" 'connect 10.9.0.2 8080'
expect new EKEYREJECTED
wire_protected wire a b canary
