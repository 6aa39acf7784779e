# No SA and none to be had: ENOKEY, at once, never EAGAIN; nothing leaves.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
start_broker a
capture wire
control wire
sock b clear 'listen :: 8080' serve
expect clear ok
once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' elapsed 'connect fd00::2 8080' elapsed \
  'connect ::ffff:10.9.0.2 8080' elapsed 'nconnect 10.9.0.2 8080' elapsed 'nconnect fd00::2 8080' elapsed >"$LAB/said"
expect_eq "five times ENOKEY" "$(grep -c 'connect: ENOKEY' "$LAB/said")" 5
while read -r _ _ milliseconds; do
  [ "$milliseconds" -lt 1500 ] || fail "it took $milliseconds ms"
done < <(grep elapsed "$LAB/said")
want_refusal a no-sa
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"
# One direction alone is no SA.
manual_sa a b 7 alice bob
read -r src dst spi < <(grep '^10.9.0.2' "$LAB/sa.7")
ip -n a xfrm state delete src "$src" dst "$dst" proto esp spi "$spi"
expect_eq "an SA in one direction" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: ENOKEY"
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"
want_latches a 0 '.*'
