# An impostor's SA appears while both ends are blocked in recv, read, epoll and libssl: ECONNRESET, all of them.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
tls_certificate
capture wire
for i in 0 1 2; do
  latched b "srv$i" "$LAB/in.toml" "listen :: 808$i" accept
  latched a "cli$i" "$LAB/out.toml"
done
latched b tls-srv "$LAB/in.toml" 'listen :: 8083' "tls-accept $LAB/cert.pem"
for i in 0 1 2; do expect "srv$i" ok; done
expect tls-srv ok
want cli0 'connect 10.9.0.2 8080' ok
want cli1 'connect fd00::2 8081' ok
want cli2 'connect 10.9.0.2 8082' ok
# libssl's own reads: s_client waits for octets and says the errno of what it gets.
bg a tls-cli timeout 40 latchkey run -p "$LAB/out.toml" -- openssl s_client -quiet -connect 10.9.0.2:8083
for i in 0 1 2; do
  answer "srv$i"
  want "cli$i" "send canary-$i" ok
  want "srv$i" recv "canary-$i"
done
answer tls-srv
want_latches a 4 'ESTABLISHED .*'
want_latches b 4 'ESTABLISHED .*'
wire_protected wire a b canary

for side in cli srv; do
  tell ${side}0 recv
  tell ${side}1 read
  tell ${side}2 epoll
done
tell tls-srv epoll
sleep 0.5
for side in cli0 cli1 cli2 srv0 srv1 srv2 tls-srv; do silent $side; done
impostor
for side in cli0 cli1 cli2 srv0 srv1 srv2 tls-srv; do expect $side ECONNRESET; done
check "libssl's read says ECONNRESET (104)" retry 10 grep -q 'errno=104' "$LAB/tls-cli.log"
want_latches a 4 'BROKEN [0-9]+ .* bob alice transport aes-gcm-16:256 conflict-sa'
want_latches b 4 'BROKEN 808[0-9] .* alice bob transport aes-gcm-16:256 conflict-sa'
for host in a b; do want_logged $host "the reason is logged by $host" conflict-sa; done
# And so it stays.
for side in cli0 srv0; do
  want $side recv ECONNRESET
  want $side read ECONNRESET
  want $side 'send canary-after' ECONNRESET
  want $side 'write canary-after' ECONNRESET
  want $side 'in-child recv' 'recv: ECONNRESET'
done
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
for side in cli0 cli1 cli2 srv0 srv1 srv2 tls-srv; do end $side; done
