# Another program is exec'ed with the latched socket: it stays protected, and breaks with ECONNRESET.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
pair_connects 8080 :: 10.9.0.2 canary-exec
tell cli8080 "exec -i $LAB/cli8080.in"
expect cli8080 ok
want cli8080 'echo canary-exec-after' canary-exec-after
# bash connects, cat inherits the connection as its standard input.
latched b talker "$LAB/in.toml" 'listen 0.0.0.0 8081' accept
expect talker ok
# shellcheck disable=SC2016
bg a cat timeout 40 latchkey run -p "$LAB/out.toml" -- bash -c 'exec cat </dev/tcp/10.9.0.2/8081'
expect talker 10.9.0.1
want talker 'send canary-exec-cat' ok
check "cat has it" retry 5 grep -q canary-exec-cat "$LAB/cat.log"
want_latches a 2 'ESTABLISHED .*'
wire_protected wire a b canary-exec
tell cli8080 recv
impostor
expect cli8080 ECONNRESET
wait "$(cat "$LAB/cat.pid")"
expect_eq "cat fails" $? 1
check "cat says why" grep -q 'Connection reset by peer' "$LAB/cat.log"
want cli8080 read ECONNRESET
expect_eq "no canary in clear" "$(clear_octets wire canary-exec)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
