# Where the default is discard: datagrams and connections that no rule allows get EACCES, nothing leaves. By default they leave, one to each of 150 places too that rules decide by port.
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

# Where rules are about ports, each place is asked about by itself, and the filter takes all that are in clear: user-mode-
# linux gives a map some 100 entries in a row and no more, until its clock ticks.
policy_header "$LAB/ports.toml"
for way in in out; do
  printf '[[rule]]\ndirection = "%s"\nprotocol = "udp"\nremote_port = [53]\naction = "protect"\nprotection = "strong"\n' $way
done >>"$LAB/ports.toml"
on c iptables-legacy -A INPUT -p udp --dport 20000:20149 -j DROP || fail "no rule"
latched a ports "$LAB/ports.toml" 'timeout 60' 'udp-bind 0.0.0.0 9000' 'udp-fan 10.9.0.3 20000 150 canary-fan'
expect ports ok
expect ports ok
expect ports 'ok: 150' 60
came() { [ "$(on c iptables-legacy -nvxL INPUT | awk '/dpts:20000:20149/ { print $1 }')" = 150 ]; }
check "all came" retry 5 came
expect_eq "each by itself" "$(on a ip xfrm policy list dir out | grep -c 'sport 9000 dport 20')" 150
