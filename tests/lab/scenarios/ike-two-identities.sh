# Two connections to one address, latched to different peers one after the other: each is listed with its own, and a third peer gets none.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

policy_in "$LAB/in.toml" '"8080-8089"' a.lab
policy_out "$LAB/out.toml" 8080 b.lab
printf '[peer.other]\nid = ["mallory.lab"]\n[[rule]]\nname = "other"\ndirection = "out"\nprotocol = "tcp"\nremote_port = [8081]\naction = "protect"\nprotection = "strong"\npeer = "other"\n' >>"$LAB/out.toml"
IKE_REMOTE='*.lab' ike a
ike b
start_broker a
start_broker b
capture wire
serve b srv0 "$LAB/in.toml" :: 8080
latched a cli0 "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-b'
expect cli0 ok
expect cli0 canary-b
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
first=$(field a b.lab id)
expect_eq "b is not who the other rule wants" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8081')" "= connect: EKEYREJECTED"
want_refusal a peer-mismatch

# b goes: its connection stalls, and does not go on under the one who comes.
ike_down a a-b
IKE_ID=mallory ike b
serve b srv1 "$LAB/in.toml" :: 8081
tell cli0 recv
latched a cli1 "$LAB/out.toml" 'connect 10.9.0.2 8081' 'echo canary-m'
expect cli1 ok
expect cli1 canary-m
expect cli0 ECONNRESET
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa'
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 mallory\.lab a\.lab transport aes-gcm-16:256 -'
expect_eq "the first keeps its peer" "$(field a b.lab id)" "$first"
expect_eq "mallory is not b" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: EKEYREJECTED"
end cli1
wire_protected wire a b canary
