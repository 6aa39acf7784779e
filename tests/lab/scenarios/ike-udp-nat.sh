# Two UDP clients behind one NAT and a server with one socket for both: told apart by SAs of their flows' own, over rekeys; with one port between them neither is served.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

behind_nat
policy_in "$LAB/in.toml" '"8080-8089"' b.lab c.lab
policy_out "$LAB/out.toml" '"8080-8089"' a.lab
sed -i 's/protocol = "tcp"/protocol = "udp"/; s/^\[protection.strong\]/&\nsharing = "unique"/' "$LAB/in.toml" "$LAB/out.toml"
# charon gives the ports of transport mode SAs to the kernel only where it is told so.
export IKE_CHARON='plugins {;kernel-netlink {;set_proto_port_transport_sa = yes;};}'
IKE_CONN='remote_addrs = %any' ike a
ike b c
for host in a b c; do start_broker $host; done
capture wire
latched a srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080' 'timeout 3'
expect srv ok
expect srv ok

# heard NAME TEXT: sent until it is heard, as who speaks UDP does: what comes before the server's broker has seen
# to a new SA is lost.
heard() {
  local i
  for i in 1 2 3 4 5; do
    want "$1" "send $2" ok
    ask srv udp-answer
    [ "${REPLY#*: }" = timeout ] || break
  done
  expect_eq "the server hears" "${REPLY#*: }" "$2"
  want "$1" recv "$2"
}
for way in 'b 9001' 'c 9002'; do
  latched "${way% *}" "cli${way% *}" "$LAB/out.toml" 'timeout 60' "udp 10.9.0.1 8080 ${way#* }"
  expect "cli${way% *}" ok
  expect "cli${way% *}" ok
done
for round in 1 2; do
  for host in b c; do heard "cli$host" "canary-$host-$round"; done
  [ $round = 1 ] || break
  # Rekeyed by either end, both of them.
  for host in b c; do
    on $host swanctl --rekey --child "$(ike_sas $host | awk '$3 == "INSTALLED" { print $1; exit }')" >/dev/null || fail "no rekey by $host"
  done
done
want_latches b 1 'ESTABLISHED 9001 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
want_latches c 1 'ESTABLISHED 9002 10\.9\.0\.1 a\.lab c\.lab transport aes-gcm-16:256 -'
# c has b's port, too: whose a datagram is cannot be told any more, so it is nobody's.
latched c same "$LAB/out.toml" 'timeout 60' 'udp 10.9.0.1 8080 9001'
answer same 60
answer same 60
want_logged a "that is said" 'conflict-sa|ambiguous-peer'
tell same 'send canary-same'
tell clib 'send canary-same'
want srv recvfrom timeout
heard clic canary-c-3
expect_eq "nothing in clear" "$(clear_octets wire canary)" 0
check "there was ESP" [ "$(esp_packets wire 10.9.0.1 10.9.0.254)" -ge 8 ]
