# Another identity's SA comes under the very reqid that is latched, or the PAD changes its mind: ECONNRESET.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
for i in 0 1; do
  latched b "srv$i" "$LAB/in.toml" "listen :: 808$i" accept
  latched a "cli$i" "$LAB/out.toml"
  expect "srv$i" ok
done
# One pinned by reqid, as manual keys are by themselves, one by SPI.
sed 's/^min_key_bits.*/&\npin = "spi"/' "$LAB/out.toml" >"$LAB/spi.toml"
latched a spi "$LAB/spi.toml"
want cli0 'connect 10.9.0.2 8080' ok
want spi 'connect fd00::2 8081' ok
for i in 0 1; do answer "srv$i"; done
want cli0 'send canary-reqid' ok
want spi 'send canary-spi' ok
want srv0 recv canary-reqid
want srv1 recv canary-spi
for name in cli0 spi srv0 srv1; do tell $name recv; done
manual_sa a b 7 mallory bob
for name in cli0 spi srv0 srv1; do expect $name ECONNRESET; done
want_latches a 2 'BROKEN .* conflict-sa'
want_latches b 2 'BROKEN .* conflict-sa'

# The same SAs, another name for who is behind them.
sa_delete a b 7
for host in a b; do on $host sh -c ': >/etc/latchkey/pad.toml'; done
rm "$LAB/sa.7"
manual_sa a b 8 alice bob
want srv0 'listen :: 8082' ok # a new one: what waited at the old one may have been mallory's
want cli0 'connect 10.9.0.2 8082' ok
want srv0 accept ::ffff:10.9.0.1
want cli0 'send canary-pad' ok
want srv0 recv canary-pad
tell cli0 recv
on a sed -i 's/"bob"/"eve"/' /etc/latchkey/pad.toml
expect cli0 ECONNRESET
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
