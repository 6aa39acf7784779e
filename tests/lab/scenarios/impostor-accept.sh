# An impostor's SA appears before accept: the program never sees that child, and goes on with clean peers. Nor does one whose
# listener does not block and is waited for by epoll: it finds nobody, is not woken for nobody again, and hears of the clean peer.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8082"' alice carol
policy_out "$LAB/out.toml" '"8080-8082"' bob
manual_sa a b 7 alice bob
manual_sa c b 11 carol bob
for host in a b c; do start_broker $host; done
capture wire
latched b srv "$LAB/in.toml" 'listen :: 8080'
expect srv ok
triggers=(level edge)
for i in 1 2; do
  latched b "srv$i" "$LAB/in.toml" "listen :: 808$i"
  expect "srv$i" ok
done
latched a loops "$LAB/out.toml" 'connect 10.9.0.2 8081' 'use 2' 'connect 10.9.0.2 8082'
for i in 1 2 3; do expect loops ok; done
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'send canary-before-accept'
expect cli ok
expect cli ok
tell cli recv
impostor
expect cli ECONNRESET
tell srv accept
sleep 1
silent srv
latched c clean "$LAB/out.toml" 'connect 10.9.0.2 8080' 'send canary-clean'
expect clean ok
expect clean ok
expect srv ::ffff:10.9.0.3
want srv recv canary-clean
want srv 'send canary-back' ok
want clean recv canary-back
for i in 1 2; do
  trigger=${triggers[i - 1]}
  mark b
  want "srv$i" "eaccept $trigger" EAGAIN
  want_refusal b ambiguous-peer
  tell "srv$i" "eaccept $trigger"
  latched c "clean$i" "$LAB/out.toml" "connect 10.9.0.2 808$i"
  expect "clean$i" ok
  expect "srv$i" '::ffff:10.9.0.3 EAGAIN'
  end "clean$i"
  end "srv$i"
done
want_latches b 1 'ESTABLISHED .*'
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.3 carol bob transport aes-gcm-16:256 -'
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
expect_eq "nothing but ESP at c" "$(non_esp wire b c)" 0
check "there was ESP" [ "$(esp_packets wire b c)" -gt 0 ]
