# sharing = "unique": each connection has SAs of its own, with its ports, of the one suite asked for; they go with it. A server that asks for them answers nobody who comes under a wide one.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

# charon gives the ports of transport mode SAs to the kernel only where it is told so. The configured child
# is for all of a peer's traffic.
export IKE_CHARON='plugins {;kernel-netlink {;set_proto_port_transport_sa = yes;};}'
export IKE_ESP=aes256gcm16-x25519,aes256-sha256-x25519
policy_in "$LAB/in.toml" '"8080-8089"' a.lab
sed -i 's/^encryption.*/encryption = ["aes-gcm-16", "aes-cbc"]/' "$LAB/in.toml"
policy_out "$LAB/out.toml" '"8080-8089"' b.lab
sed -i 's/^min_key_bits = .*/&\nsharing = "unique"/' "$LAB/out.toml"
grep -v '^sharing' "$LAB/out.toml" >"$LAB/shared.toml"
sed 's/^min_key_bits.*/&\nsharing = "unique"/' "$LAB/in.toml" >"$LAB/in-unique.toml"
sed 's/^encryption.*/encryption = ["aes-cbc"]\nintegrity = ["hmac-sha2-256"]/' "$LAB/out.toml" >"$LAB/cbc.toml"

own_sas() { on "$1" ip xfrm state | grep -cE 'sel src 10\.9\.0\.[12]/32 dst 10\.9\.0\.[12]/32 proto tcp sport [0-9]+ dport [0-9]+'; }
own_conns() { on "$1" swanctl --list-conns | grep -c '^latchkey-'; }
no_own() { [ "$(own_sas a)$(own_sas b)$(own_conns a)" = 000 ]; }
ports() { on a ip xfrm state | sed -nE 's/.*sel src 10\.9\.0\.1.* sport ([0-9]+) dport ([0-9]+).*/\1 \2/p' | sort; }

capture wire
ike a b
start_broker a
start_broker b
latched b srv "$LAB/in.toml" 'listen :: 8080' serve
expect srv ok
expect srv ok
latched a one "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1'
expect one ok
expect one canary-1
latched a two "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-2'
expect two ok
expect two canary-2
want one 'echo canary-3' canary-3
want_latches a 2 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches b 2 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
want_field a ESTABLISHED pin spi
want_field b ESTABLISHED pin spi
expect_eq "two pairs of SAs at a" "$(own_sas a)" 4
expect_eq "two pairs of SAs at b" "$(own_sas b)" 4
expect_eq "each has a port of its own, and the server's" "$(ports | awk '{ print $2 }' | uniq -c | awk '{ print $1, $2 }')" '2 8080'
expect_eq "these are the latches' ports" "$(ports | awk '{ print $1 }')" "$(latches a | awk '/^ESTABLISHED/ { print $2 }' | sort)"
expect_eq "charon has a connection for each" "$(own_conns a)" 2

# Who shares goes by SAs for all of the peer's traffic, beside them.
latched a shared "$LAB/shared.toml" 'connect 10.9.0.2 8080' 'echo canary-4'
expect shared ok
expect shared canary-4
want one 'echo canary-5' canary-5
want two 'echo canary-6' canary-6

# With the connection the SAs go, at both ends.
end one
end two
retry 15 no_own || fail "left over: $(own_sas a) at a, $(own_sas b) at b, $(own_conns a) connections: $(ports)"
echo "good: SAs and connections are gone with their flows"
want shared 'echo canary-7' canary-7
end shared

# A server that wants SAs of the flow's own answers nobody under the wide one, which still stands.
latched b strict "$LAB/in-unique.toml" 'listen :: 8089' serve
expect strict ok
expect strict ok
latched a wide "$LAB/shared.toml" 'timeout 3' 'connect 10.9.0.2 8089'
latched a own "$LAB/out.toml" 'connect 10.9.0.2 8089' 'echo canary-8'
expect own ok
expect own canary-8
expect wide ok
expect wide timeout
expect_eq "the server has latched the one with its own" "$(latches b | grep -c '^ESTABLISHED 8089')" 1
end own
end wide

# One suite is asked for: the second of those that the configured child would take.
end srv
end strict
ike_down a a-b
retry 15 no_own || fail "left over: $(ports)"
serve b cbc-srv "$LAB/in.toml" :: 8081
latched a cbc "$LAB/cbc.toml" 'connect 10.9.0.2 8081' 'echo canary-9'
expect cbc ok
expect cbc canary-9
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-cbc:256 .*'
wire_protected wire a b canary
