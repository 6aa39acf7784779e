# An SA of the same peer with other parameters appears: a conflict too, ECONNRESET at both ends.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
latched b srv "$LAB/in.toml" 'listen 0.0.0.0 8080' accept
latched a cli "$LAB/out.toml"
expect srv ok
want cli 'connect 10.9.0.2 8080' ok
answer srv
want cli 'send canary-params' ok
want srv recv canary-params
wire_protected wire a b canary-params
tell cli recv
tell srv recv
impostor alice aes-gcm-16:128
expect cli ECONNRESET
expect srv ECONNRESET
want_latches a 1 'BROKEN .* conflict-sa'
want_latches b 1 'BROKEN .* conflict-sa'
# While they conflict no new latch is made; with the intruder gone there is one again.
ask cli 'connect 10.9.0.2 8080'
check "no connection while SAs conflict: $REPLY" [ "${REPLY#*: }" != ok ]
check "and never EAGAIN" [ "${REPLY#*: }" != EAGAIN ]
sa_delete a b 9
want cli 'connect 10.9.0.2 8080' ok
want srv accept 10.9.0.1
want cli 'send canary-params-2' ok
want srv recv canary-params-2
expect_eq "no canary in clear" "$(clear_octets wire canary-params)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
# A stronger suite is another suite: what was latched is kept.
manual_sa a b 11 alice bob chacha20-poly1305
want cli recv ECONNRESET
