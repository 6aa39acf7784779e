# Two peers on one listener, each connection pinned to its own; SAs of one do not serve the other.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" 8080 alice carol
policy_out "$LAB/out.toml" 8080 bob
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
spd_save b
for host in a b c; do start_broker $host; done
capture wire
serve b srv "$LAB/in.toml" :: 8080
for host in a c; do
  latched $host "four-$host" "$LAB/out.toml" 'connect 10.9.0.2 8080'
  latched $host "six-$host" "$LAB/out.toml" 'connect fd00::2 8080'
  expect "four-$host" ok
  expect "six-$host" ok
  want "four-$host" "echo canary-4-$host" "canary-4-$host"
  want "six-$host" "echo canary-6-$host" "canary-6-$host"
done
for remote in '10\.9\.0\.1 alice' 'fd00::1 alice' '10\.9\.0\.3 carol' 'fd00::3 carol'; do
  want_latches b 1 "ESTABLISHED 8080 $remote bob transport aes-gcm-16:256 -"
done

# a gets hold of carol's key and sends what it has for b under her SA: nothing arrives.
key=$(ip -n b xfrm state | grep -A3 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.*aead /aead /p')
read -r _ _ spi < <(grep '^10.9.0.3 10.9.0.2' "$LAB/sa.9")
read -r _ _ own < <(grep '^10.9.0.1 10.9.0.2' "$LAB/sa.7")
kill_broker a
ip -n a xfrm state delete src 10.9.0.1 dst 10.9.0.2 proto esp spi "$own"
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 7 mode transport replay-window 32 $key
before=$(esp_packets wire a b)
want four-a 'send canary-stolen' ok
sleep 3
check "it was sent, as ESP" [ "$(esp_packets wire a b)" -gt "$before" ]
tell four-a recv
sleep 1
silent four-a
want four-c 'echo canary-c-goes-on' canary-c-goes-on
expect_eq "nothing of it in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP at c" "$(non_esp wire b c)" 0
expect_eq "nothing but ESP at a" "$(non_esp wire a b)" 0
