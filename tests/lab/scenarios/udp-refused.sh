# Where the default is discard: datagrams and connections that no rule allows get EACCES, nothing leaves.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
for way in in out; do sed -i 's/^action = "system"/action = "discard"/' "$LAB/$way.toml"; done
capture wire
sock b clear 'listen :: 7000' serve
expect clear ok
bg b udp socat -u UDP6-RECV:7001,ipv6only=0 -
once_latched a "$LAB/out.toml" 'udp-send 10.9.0.2 7001 canary-udp' 'udp-send fd00::2 7001 canary-udp' \
  'udp-connect 10.9.0.2 7001 canary-udp' 'udp-connect fd00::2 7001 canary-udp' \
  'connect 10.9.0.2 7000' 'connect fd00::2 7000' 'nconnect 10.9.0.2 7000' 'listen 0.0.0.0 7002' 'listen :: 7002' >"$LAB/said"
expect_eq "all are refused" "$(grep -c ': EACCES$' "$LAB/said")" 9
expect_eq "nothing leaves" "$(packets wire 'src host (10.9.0.1 or fd00::1) and (tcp or udp)')" 0
# What a rule protects goes on.
pair_connects 8080 :: 10.9.0.2 canary-protected
expect_eq "the canary is not in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP" "$(non_esp wire a b)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
# The control: with default = system the same datagrams leave.
sed -i 's/^action = "discard"/action = "system"/' "$LAB/out.toml"
expect_eq "by default they leave" "$(once_latched a "$LAB/out.toml" 'udp-send 10.9.0.2 7001 canary-udp')" "= udp-send: ok"
check "and are seen" retry 5 grep -q canary-udp "$LAB/udp.log"
