# A server that answers with SYN cookies: latched connections work, and nothing is in clear, v4 and dual-stack.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
on b sysctl -qw net.ipv4.tcp_syncookies=2
capture wire
control wire
pair_connects 8080 0.0.0.0 10.9.0.2 canary-cookie-4
pair_connects 8081 :: 10.9.0.2 canary-cookie-dual-4
pair_connects 8082 :: fd00::2 canary-cookie-dual-6
expect_eq "cookies were used" "$(on b nstat -saz TcpExtSyncookiesRecv | awk '/Recv/ { print ($2 >= 3) }')" 1
# A child that nobody accepts says nothing in clear, not even when the client sends to it.
latched b idle "$LAB/in.toml" 'listen 0.0.0.0 8083'
expect idle ok
latched a eager "$LAB/out.toml" 'connect 10.9.0.2 8083' 'send canary-cookie-early'
expect eager ok
expect eager ok
want idle accept 10.9.0.1
want idle recv canary-cookie-early
want idle 'send canary-cookie-back' ok
want eager recv canary-cookie-back
refuses_clear c 10.9.0.2 8080
refuses_clear c 10.9.0.2 8081
refuses_clear c fd00::2 8082
expect_eq "no answer to the clear client" "$(packets wire 'src portrange 8080-8089 and dst host (10.9.0.3 or fd00::3)')" 0
want_latches b 4 'ESTABLISHED 808[0-9] .* alice bob transport aes-gcm-16:256 -'
for name in cli8080 cli8081 cli8082 eager idle; do end $name; done
wire_protected wire a b canary-cookie
