# What happens to SAs of one flow's own in a long life: over IPv6, for a connect that does not block, through rekeys and a broker that is killed, they stay the flow's, and go with it.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

# charon gives the ports of transport mode SAs to the kernel only where it is told so.
export IKE_CHARON='plugins {;kernel-netlink {;set_proto_port_transport_sa = yes;};}'
policy_in "$LAB/in.toml" '"8080-8089"' a.lab
policy_out "$LAB/out.toml" '"8080-8089"' b.lab
sed -i 's/^min_key_bits = .*/&\nsharing = "unique"/' "$LAB/out.toml"

own_sas() { on "$1" ip xfrm state | grep -cE 'sel src [0-9a-f.:]+/(32|128) dst [0-9a-f.:]+/(32|128) proto tcp sport [0-9]+ dport [0-9]+'; }
own_conns() { on "$1" swanctl --list-conns | grep -c '^latchkey-'; }
own_spis() { on a ip xfrm state | grep -B8 'proto tcp sport' | sed -nE 's/.*spi (0x[0-9a-f]+) .*/\1/p' | sort | tr '\n' ' '; }
no_own() { [ "$(own_sas a)$(own_sas b)$(own_conns a)" = 000 ]; }
other_spis() { [ "$(own_sas a)" = 2 ] && [ "$(own_spis)" != "$spis" ]; }
rekey() { # rekey HOST: the one child of a flow's own, which at b goes by the configured name
  local child=a-b
  [ "$1" = b ] || child=$(on a swanctl --list-sas --raw | grep -o 'latchkey-[^ {]*' | head -n 1)
  spis=$(own_spis)
  on "$1" swanctl --rekey --child "${child:-none}" >>"$LAB/swanctl-$1.log" 2>&1 || fail "$1 does not rekey \"$child\": $(on a swanctl --list-sas)"
  retry 20 other_spis || fail "no new SAs: $(on a swanctl --list-sas)"
}

capture wire
ike a b
start_broker a
start_broker b
serve b srv "$LAB/in.toml" :: 8080

latched a six "$LAB/out.toml" 'timeout 60' 'connect fd00::2 8080' 'echo canary-6a'
expect six ok
expect six ok
expect six canary-6a
want_latches a 1 'ESTABLISHED [0-9]+ fd00::2 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 fd00::1 a\.lab b\.lab transport aes-gcm-16:256 -'
want_field a ESTABLISHED pin spi
expect_eq "a pair of its own" "$(own_sas a)" 2
rekey a
want six 'echo canary-6b' canary-6b
end six
retry 20 no_own || fail "left over: $(own_sas a) at a, $(own_sas b) at b, $(own_conns a) connections"

# The connect comes back before there are SAs, for b's charon stands still; they are made for the port that it has.
charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }
charon_b STOP
latched a non "$LAB/out.toml" 'timeout 60' 'nconnect 10.9.0.2 8080' 'echo canary-n1'
want_logged a 'it is LARVAL' 'new -> LARVAL'
charon_b CONT
expect non ok
expect non ok
expect non canary-n1
want_logged a 'and was' 'LARVAL -> ESTABLISHED'
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
expect_eq "a pair of its own" "$(own_sas a)" 2
rekey a
want non 'echo canary-n2' canary-n2
tell non 'sleep 0'
expect non ok

# Killed: charon goes on, and the next one knows whose the SAs are.
kill_broker a
want non 'echo canary-n3' canary-n3
start_broker a
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
want non 'echo canary-n4' canary-n4
rekey a
want non 'echo canary-n5' canary-n5
latched a two "$LAB/out.toml" 'timeout 60' 'connect 10.9.0.2 8080' 'echo canary-t1'
expect two ok
expect two ok
expect two canary-t1
expect_eq "each has its own" "$(own_sas a)" 4
end non
half() { [ "$(own_sas a)$(own_sas b)$(own_conns a)" = 221 ]; }
retry 20 half || fail "left over: $(own_sas a) at a, $(own_sas b) at b, $(own_conns a) connections"
want two 'echo canary-t2' canary-t2

# The server's broker too; and what its program closed while there was none at a is given back.
kill_broker b
start_broker b
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
want two 'echo canary-t3' canary-t3
rekey b
want two 'echo canary-t4' canary-t4
kill_broker a
end two
start_broker a
retry 20 no_own || fail "left over: $(own_sas a) at a, $(own_sas b) at b, $(own_conns a) connections"
wire_protected wire a b canary
