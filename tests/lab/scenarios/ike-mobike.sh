# A peer's address changes (MOBIKE). Transport mode: the flow was bound to it, and breaks as no-sa. Tunnel mode: the flow goes on, and the new outer address is shown.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

move() { # move FROM TO: b's address
  ip -n b address add "$2/24" dev eth0 && ip -n b address delete "$1/24" dev eth0 || fail "b keeps its address"
  retry 30 moved "$2" || fail "charon does not follow: $(ip -n a xfrm state)"
}
moved() { ip -n a xfrm state | grep -q "dst $1\$"; }
on b sh -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/promote_secondaries'
# Else charon may as well go on over IPv6, and the children for IPv4 end.
on b sh -c 'echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6'

key_policies
inner a 1
inner b 2
ike a b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'timeout 90' 'connect 10.9.0.2 8080' 'echo canary-1'
expect cli ok
expect cli ok
expect cli canary-1
tell cli recv
move 10.9.0.2 10.9.0.22
expect cli ECONNRESET 60
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* no-sa'
end cli
end srv
ip -n b address add 10.9.0.2/24 dev eth0
ip -n b address delete 10.9.0.22/24 dev eth0
ike_down a a-b

key_policies 'child = "a-b"'
tunnelled
IKE_CHILD='mode = tunnel;local_ts = 192.168.1.1;remote_ts = 192.168.2.1' ike a
IKE_CHILD='mode = tunnel;local_ts = 192.168.2.1;remote_ts = 192.168.1.1' ike b
serve b srv "$LAB/in.toml" 192.168.2.1 8080
latched a cli "$LAB/out.toml" 'timeout 90' 'connect 192.168.2.1 8080' 'echo canary-2'
expect cli ok
expect cli ok
expect cli canary-2
want_field a ESTABLISHED outer.remote.address 10.9.0.2
move 10.9.0.2 10.9.0.22
want cli 'echo canary-3' canary-3
want_latches a 1 'ESTABLISHED [0-9]+ 192\.168\.2\.1 b\.lab a\.lab tunnel aes-gcm-16:256 -'
want_field a ESTABLISHED outer.remote.address 10.9.0.22
want_field b '^ESTABLISHED' outer.local.address 10.9.0.22
wire_protected wire 10.9.0.1 10.9.0.2 canary
wire_protected wire 10.9.0.1 10.9.0.22 canary
expect_eq "nothing of the inside" "$(packets wire 'net 192.168.0.0/16')" 0
