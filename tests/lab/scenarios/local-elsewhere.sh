# An address of ours that the routes lead away from this host is another host's: of a VRF, of a device that is down, moved on, translated. Nothing goes there in clear that is to be protected; what stays within the host goes on.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_out "$LAB/out.toml" '"8080-8089"' bob
sed 's/protocol = "tcp"/protocol = "udp"/' "$LAB/out.toml" >"$LAB/udp.toml"
manual_sa a b 7 alice bob
modprobe -a vrf dummy iptable_nat || fail "no modules"
start_broker a
capture wire
for address in 10.9.0.3 fd00::3; do
  sock c "c-$address" "listen $address 8080" serve
  expect "c-$address" ok
  expect "c-$address" ok
done
none() { expect_eq "nothing of ours in clear: $1" "$(clear_octets wire "canary-$1")" 0; }
bare() { # bare NAME POLICY [COMMAND...]: on a, with no fence behind the shim
  local name=$1 _under="latchkey run --no-fence -p $2 --"
  shift 2
  sock a "$name" "$@"
}
try() { # try NAME ADDRESS: nothing goes there
  bare "tcp-$1" "$LAB/out.toml" 'timeout 3' "connect $2 8080" "send canary-$1-tcp"
  expect "tcp-$1" ok
  expect "tcp-$1" ENOKEY
  expect "tcp-$1" EPIPE
  bare "con-$1" "$LAB/udp.toml" "udp $2 8080"
  expect "con-$1" ENOKEY
  bare "held-$1" "$LAB/udp.toml" "udp-new $2" "sendto $2 8080 canary-$1-held" "sendto_past $2 8080 canary-$1-past"
  expect "held-$1" ok
  expect "held-$1" ENOKEY
  expect "held-$1" EPERM
  none "$1"
}

ip -n a link add blue type vrf table 100 || fail "no VRF"
ip -n a -batch - <<END || fail "no device in the VRF"
link set blue up
link add inside type dummy
link set inside master blue up
address add 10.9.0.3/32 dev inside
address add fd00::3/128 dev inside nodad
END
try vrf 10.9.0.3
try vrf6 fd00::3
# A program in the VRF reaches that address within the host, fenced and not.
on a sysctl -qw net.ipv4.tcp_l3mdev_accept=1 || fail "no such setting"
sock a own 'listen 0.0.0.0 8081' serve
expect own ok
expect own ok
latched a fenced "$LAB/out.toml" 'new-on blue 10.9.0.3'
bare inside "$LAB/out.toml" 'new-on blue 10.9.0.3'
for name in fenced inside; do
  expect "$name" ok
  want "$name" 'again 10.9.0.3 8081' ok
  want "$name" 'echo clear-vrf' clear-vrf
done
end own
ip -n a link delete inside || fail "it stays"

on a sh -c 'ip link add inside type dummy; echo 1 >/proc/sys/net/ipv6/conf/inside/keep_addr_on_down
  ip link set inside up; ip address add fd00::3/128 dev inside nodad; ip link set inside down' || fail "no device"
on a ip -6 address show dev inside | grep -q fd00::3 || fail "the address went"
try down fd00::3
ip -n a link delete inside || fail "it stays"

# Addresses that go elsewhere while they are in use: the fence holds what was within the host.
on a ip address add 10.9.0.77/32 dev eth0 && on a ip address add fd00::77/128 dev eth0 nodad || fail "no address"
for v in 10.9.0.77:10.9.0.1 fd00::77:fd00::1; do
  to=${v%:"${v#*77:}"} from=${v#*77:}
  sock a "srv-$to" "listen $to 8081" serve
  expect "srv-$to" ok
  expect "srv-$to" ok
  sock a "dgram-$to" "udp-bind $to 8082" 'timeout 3'
  expect "dgram-$to" ok
  expect "dgram-$to" ok
  latched a "t-$to" "$LAB/out.toml" "connect $to 8081 9100 $from" 'echo clear-here'
  expect "t-$to" ok
  expect "t-$to" clear-here
  latched a "u-$to" "$LAB/udp.toml" "udp-bind $from 9101" "again $to 8082" 'send clear-u'
  for _ in 1 2 3; do expect "u-$to" ok; done
  want "dgram-$to" recv clear-u
  latched a "h-$to" "$LAB/udp.toml" "udp-bind $from 9102" "sendto $to 8082 clear-h"
  expect "h-$to" ok
  expect "h-$to" ok
  want "dgram-$to" recv clear-h
done
expect_eq "it was all within the host" "$(clear_octets wire clear)" 0
on a ip address delete 10.9.0.77/32 dev eth0
on a ip address delete fd00::77/128 dev eth0
on c ip address add 10.9.0.77/32 dev eth0 && on c ip address add fd00::77/128 dev eth0 nodad || fail "no address"
for v in 10.9.0.77:10.9.0.1 fd00::77:fd00::1; do
  to=${v%:"${v#*77:}"}
  sock c "now-$to" "udp-bind $to 8082" 'timeout 1'
  expect "now-$to" ok
  expect "now-$to" ok
  tell "t-$to" 'send canary-moved-t'
  want "u-$to" 'send canary-moved-u' EPERM
  want "h-$to" "sendto_past $to 8082 canary-moved-h" EPERM
  want "h-$to" "sendto $to 8082 canary-moved-h" ENOKEY
  want "now-$to" recv timeout
  # Asked again the same sockets are told why.
  want "u-$to" "again $to 8082" ENOKEY
done
none moved
check "it is on record" retry 5 grep -q 'refused: fenced -> 10.9.0.77:8082 (packet dropped' "$LAB/broker-a.log"

# Translated on its way: a rule that bypasses means what comes of it, one that protects does not.
on a iptables-legacy -t nat -A OUTPUT -d 10.9.0.1 -p tcp -m multiport --dports 8085,9085 -j DNAT --to-destination 10.9.0.3:8080 || fail "no NAT"
latched a lawful "$LAB/out.toml" 'connect 10.9.0.1 9085' 'echo clear-lawful'
expect lawful ok
expect lawful clear-lawful
check "that is in clear" [ "$(clear_octets wire clear-lawful)" -ge 1 ]
latched a nat "$LAB/out.toml" 'timeout 2' 'connect 10.9.0.1 8085'
expect nat ok
expect nat timeout
once a 'connect 10.9.0.1 8085' 'echo clear-nat' | grep -q 'echo: clear-nat' || fail "no NAT"
none ''
