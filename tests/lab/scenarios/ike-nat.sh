# Two peers behind one NAT. Transport mode: one is served while it is alone behind the address, and nobody when there are two, which is on record; each is when the SAs are of one flow. Tunnel mode: one is served, and shown at the address and port of the NAT.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

behind_nat
# A NAT with a short memory.
echo 2 | tee /proc/sys/net/netfilter/nf_conntrack_udp_timeout{,_stream} >/dev/null || fail "no memory to shorten"
# The kernel's own way for the inside goes there too.
inner a 1
inner b 2
ip -n b route replace 192.168.0.0/16 via 10.9.0.254 src 192.168.2.1
ip -n a route replace 192.168.0.0/16 via 10.9.0.254 src 192.168.1.1

policies() { # policies [MODE]
  policy_in "$LAB/in.toml" '"8080-8089"' b.lab c.lab
  policy_out "$LAB/out.toml" '"8080-8089"' a.lab
  [ $# = 0 ] || tunnelled
}
policies
# charon gives the ports of transport mode SAs to the kernel only where it is told so.
export IKE_CHARON='plugins {;kernel-netlink {;set_proto_port_transport_sa = yes;};}'
IKE_CONN='remote_addrs = %any' ike a
ike b c
for host in a b c; do start_broker $host; done
capture wire
serve a srv "$LAB/in.toml" 10.9.0.1 8080
latched b clib "$LAB/out.toml" 'timeout 60' 'connect 10.9.0.1 8080' 'echo canary-b'
expect clib ok
expect clib ok
expect clib canary-b
want_latches a 1 'ESTABLISHED 8080 10\.9\.0\.254 b\.lab a\.lab transport aes-gcm-16:256 -'
want_field a '^ESTABLISHED' nat.remote True
want_field a '^ESTABLISHED' outer.remote.address 10.9.0.254
want_field b '^ESTABLISHED' nat.local True
tell clib recv
# Meanwhile it forgets b, and hands its port to c: b's latch at a ends with an error, not with c's octets.
forgotten() { ! grep -q 'src=10\.9\.0\.2 ' /proc/net/nf_conntrack; }
[ -r /proc/net/nf_conntrack ] || fail "the NAT's table is not to be read"
retry 15 forgotten || fail "the NAT does not forget: $(cat /proc/net/nf_conntrack)"
check "c comes" ike_up c a-c
remote_port() { on a swanctl --list-sas --ike "$1" --raw | grep -o 'remote-port=[0-9]*' | head -n 1; }
expect_eq "from the port that was b's" "$(remote_port a-c)" "$(remote_port a-b)"
retry 5 grep -q ECONNRESET "$LAB/srv.log" || fail "no ECONNRESET for the server: $(cat "$LAB/srv.log")"
echo "good: ECONNRESET for the server"
want_latches a 1 'BROKEN 8080 10\.9\.0\.254 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa'
for host in b c; do
  expect_eq "$host is not served" "$(once_latched $host "$LAB/out.toml" 'timeout 5' 'connect 10.9.0.1 8080' | tail -n 1)" "= connect: timeout"
done
want_latches a 0 'ESTABLISHED .*'
want_refusal a ambiguous-peer
both='ambiguous-peer.*10\.9\.0\.1:8080 <- 10\.9\.0\.254.*"b\.lab" and "c\.lab"'
want_logged a "both are named" "$both"
expect_eq "and once" "$(grep -c "$both" "$LAB/broker-a.log")" 1
check "why tells it" grep -q '"b.lab" and "c.lab"' <(on a latchkey why)
end clib
end srv
ike_down b a-b
ike_down c a-c

# SAs of one flow each: with their ports they can be told apart.
for file in in out; do sed 's/^\[protection.strong\]/&\nsharing = "unique"/' "$LAB/$file.toml" >"$LAB/$file-unique.toml"; done
serve a srv1 "$LAB/in-unique.toml" 10.9.0.1 8081
for host in b c; do
  latched $host uni$host "$LAB/out-unique.toml" 'timeout 60' 'connect 10.9.0.1 8081' "echo canary-unique-$host"
  expect uni$host ok
  expect uni$host ok
  expect uni$host canary-unique-$host
done
want unib 'echo canary-unique-b2' canary-unique-b2
want_latches a 1 'ESTABLISHED 8081 10\.9\.0\.254 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED 8081 10\.9\.0\.254 c\.lab a\.lab transport aes-gcm-16:256 -'
end unib
end unic
end srv1
no_own() { ! on a ip xfrm state | grep -q dport; }
retry 15 no_own || fail "left over: $(on a ip xfrm state)"

policies tunnel
IKE_CONN='remote_addrs = %any' IKE_CHILD='mode = tunnel;local_ts = 192.168.1.1;remote_ts = 192.168.0.0/16' ike a
IKE_CHILD='mode = tunnel;local_ts = 192.168.2.1;remote_ts = 192.168.1.1' ike b
check "b has a tunnel" ike_up b a-b
serve a srv2 "$LAB/in.toml" 192.168.1.1 8080
latched b clib2 "$LAB/out.toml" 'timeout 60' 'connect 192.168.1.1 8080' 'echo canary-inside'
expect clib2 ok
expect clib2 ok
expect clib2 canary-inside
want_latches a 1 'ESTABLISHED 8080 192\.168\.2\.1 b\.lab a\.lab tunnel aes-gcm-16:256 -'
want_field a '^ESTABLISHED' nat.remote True
want_field a '^ESTABLISHED' outer.remote.address 10.9.0.254
port=$(remote_port a-b)
want_field a '^ESTABLISHED' outer.remote.port "${port#*=}"
wire_protected wire 10.9.0.1 10.9.0.254 canary
expect_eq "nothing of the inside" "$(packets wire 'net 192.168.0.0/16')" 0
