# A broker stops cleanly and comes back while connections live: they stay protected, nobody slips in meanwhile.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
pair_connects 8080 :: 10.9.0.2 canary-restart
latched b idle "$LAB/in.toml" 'listen :: 8081'
expect idle ok
stop_broker a
stop_broker b
spd_unchanged b
want cli8080 'echo canary-restart-1' canary-restart-1
want cli8080 'in-child connect 10.9.0.2 8080' 'connect: EHOSTUNREACH'
# Without guards the kernel may answer a clear client; the program must never see it.
sock c clear 'timeout 2' 'connect 10.9.0.2 8081' 'send octets-in-clear'
expect clear ok
answer clear
answer clear
start_broker a
start_broker b
want_latches a 1 'ESTABLISHED .* bob alice transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 .* alice bob transport aes-gcm-16:256 -'
want_latches b 2 'LISTENER 808[01] - - - - - -'
tell idle accept
sleep 1
silent idle
refuses_clear c 10.9.0.2 8081
latched a new "$LAB/out.toml" 'connect 10.9.0.2 8081' 'send canary-restart-2'
expect new ok
expect new ok
expect idle ::ffff:10.9.0.1
want idle recv canary-restart-2
# The server and the client of old, with the sessions they had.
want cli8080 'in-child connect fd00::2 8080' 'connect: ok'
want cli8080 'echo canary-restart-3' canary-restart-3
wire_protected wire a b canary-restart
expect_eq "no payload in clear from b" "$(packets wire 'src portrange 8080-8089 and ip and tcp[13] & 8 != 0')" 0
tell cli8080 recv
impostor
expect cli8080 ECONNRESET
