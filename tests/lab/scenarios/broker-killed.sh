# kill -9 of both brokers: connections stay protected, new ones are refused; a new broker takes over.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 :: 10.9.0.2 canary-kill-0
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
kill_broker a
kill_broker b
want cli8080 'echo canary-kill-1' canary-kill-1
want six 'echo canary-kill-6' canary-kill-6
# No broker: a program of a session, and one under a broker that was asked for, get no new connection.
latched_late() { on a latchkey run --socket /run/latchkey/broker.sock -p "$LAB/out.toml" -- true 2>"$LAB/late"; }
want cli8080 'in-child connect 10.9.0.2 8080' 'connect: EHOSTUNREACH'
want cli8080 'in-child nconnect fd00::2 8080' 'nconnect: EHOSTUNREACH'
want six 'in-child listen :: 8085' 'listen: EHOSTUNREACH'
latched_late
expect_eq "latchkey run without the broker asked for" $? 125
refuses_clear c 10.9.0.2 8080
refuses_clear c fd00::2 8080

# New brokers find everything in their journals.
start_broker a
start_broker b
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED [0-9]+ fd00::2 bob alice transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 alice bob transport aes-gcm-16:256 -'
want_latches b 1 'LISTENER 8080 - - - - - -'
serve b srv8081 "$LAB/in.toml" :: 8081
latched a new "$LAB/out.toml" 'connect 10.9.0.2 8081' 'echo canary-kill-2'
expect new ok
expect new canary-kill-2
want cli8080 'echo canary-kill-3' canary-kill-3
refuses_clear c 10.9.0.2 8080
wire_protected wire a b canary-kill

# What was latched before the kill is still watched.
tell cli8080 recv
tell six read
tell new recv
impostor
for name in cli8080 six new; do expect $name ECONNRESET; done
want_latches a 3 'BROKEN .* conflict-sa'
want_latches b 3 'BROKEN .* conflict-sa'
expect_eq "no canary in clear" "$(clear_octets wire canary-kill)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
sa_delete a b 9
for name in cli8080 six new srv8080 srv8081; do end $name; done
stop_pair
