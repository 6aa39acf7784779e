# Two peers behind one NAT, their tunnels up at once: each is served by its own, latched to who it is, and an address inside the other's is no way in.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

behind_nat
inner a 1
inner b 2
inner c 3
ip -n a route replace 192.168.0.0/16 via 10.9.0.254 src 192.168.1.1
ip -n b route replace 192.168.0.0/16 via 10.9.0.254 src 192.168.2.1
ip -n c route replace 192.168.0.0/16 via 10.9.0.254 src 192.168.3.1

policy_in "$LAB/in.toml" '"8080-8089"' b.lab c.lab
policy_out "$LAB/out.toml" '"8080-8089"' a.lab
tunnelled
IKE_CONN='remote_addrs = %any' IKE_CHILD='mode = tunnel;local_ts = 192.168.1.1;remote_ts = 192.168.0.0/16' ike a
IKE_CHILD='mode = tunnel;local_ts = 192.168.2.1;remote_ts = 192.168.1.1' ike b
IKE_CHILD='mode = tunnel;local_ts = 192.168.3.1;remote_ts = 192.168.1.1' ike c
for host in a b c; do start_broker $host; done
capture wire
serve a srv "$LAB/in.toml" 192.168.1.1 8080
serve a wild "$LAB/in.toml" 0.0.0.0 8081
latched b clib "$LAB/out.toml" 'connect 192.168.1.1 8080' 'echo canary-b1'
expect clib ok
expect clib canary-b1
latched c clic "$LAB/out.toml" 'connect 192.168.1.1 8080' 'echo canary-c1'
expect clic ok
expect clic canary-c1
want clib 'echo canary-b2' canary-b2
latched b wildb "$LAB/out.toml" 'connect 192.168.1.1 8081' 'echo canary-b3'
expect wildb ok
expect wildb canary-b3
want_latches a 1 'ESTABLISHED 8080 192\.168\.2\.1 b\.lab a\.lab tunnel aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED 8080 192\.168\.3\.1 c\.lab a\.lab tunnel aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED 8081 192\.168\.2\.1 b\.lab a\.lab tunnel aes-gcm-16:256 -'
want_field a b.lab outer.remote.address 10.9.0.254
want_field a c.lab outer.remote.address 10.9.0.254
check "their ports at the NAT differ" [ "$(field a b.lab outer.remote.port)" != "$(field a c.lab outer.remote.port)" ]

# c sends with b's inner address, under its own SA: the kernel asks for b's reqid. (The second time
# the address is c's own, which shows that the way is open.)
ip -n c address add 192.168.2.1/32 dev lo
for dir in out in; do
  from=192.168.2.1 to=192.168.1.1 outer=10.9.0.3 end=10.9.0.1
  [ $dir = out ] || { from=192.168.1.1 to=192.168.2.1 outer=10.9.0.1 end=10.9.0.3; }
  ip -n c xfrm policy add src $from dst $to dir $dir tmpl src $outer dst $end proto esp reqid 65538 mode tunnel ||
    fail "no policy at c"
done
refused() { on a sh -c 'cat /proc/net/xfrm_stat' | awk '/XfrmInTmplMismatch/ { print $2 }'; }
for port in 8080 8081; do
  before=$(refused)
  to_b=$(esp_packets wire 10.9.0.1 10.9.0.2)
  expect_eq "as b at $port" "$(once c 'timeout 3' "connect 192.168.1.1 $port 0 192.168.2.1" | tail -n 1)" "= connect: timeout"
  check "its packets come out of the tunnel, and are refused" [ "$(refused)" -gt "$before" ]
  expect_eq "and nothing answers them" "$(esp_packets wire 10.9.0.1 10.9.0.2)" "$to_b"
done
before=$(refused)
latched c own "$LAB/out.toml" 'connect 192.168.1.1 8081 0 192.168.3.1' 'echo canary-c2'
expect own ok
expect own canary-c2
expect_eq "its own packets are not refused" "$(refused)" "$before"
want clib 'echo canary-b4' canary-b4

# A rekey of one, and its end, are nothing to the other.
rekeyed() { [ "$(ike_sas a | grep -c '^a-c 65538 INSTALLED')" = 1 ] && [ "$(ike_sas a | awk '$1 == "a-c" && $3 == "INSTALLED" { print $6 }')" != "$spi" ]; }
spi=$(ike_sas a | awk '$1 == "a-c" { print $6 }')
check "c rekeys" on c swanctl --rekey --child a-c
retry 10 rekeyed || fail "no rekey: $(ike_sas a)"
want clic 'echo canary-c3' canary-c3
want clib 'echo canary-b5' canary-b5
tell clic recv
ike_down c a-c
expect clic ECONNRESET 40
want clib 'echo canary-b6' canary-b6
want_latches a 1 'ESTABLISHED 8080 192\.168\.2\.1 b\.lab a\.lab tunnel aes-gcm-16:256 -'
want_latches a 0 'ESTABLISHED 8080 192\.168\.3\.1 .*'
wire_protected wire 10.9.0.1 10.9.0.254 canary
expect_eq "nothing of the inside" "$(packets wire 'net 192.168.0.0/16')" 0
