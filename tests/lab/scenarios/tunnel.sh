# Tunnel mode: what is inside is latched to the tunnel's peer and ends, in both families; nothing else carries it.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

# a has 192.168.1.1 and fd01::1, b 192.168.2.1 and fd02::1; they reach each other's by 10.9.0.1 and 10.9.0.2.
net() { # net HOST OWN PEER VIA4 VIA6
  ip -n "$1" address add "192.168.$2.1/32" dev lo
  ip -n "$1" address add "fd0$2::1/128" dev lo nodad
  ip -n "$1" route add "192.168.$3.0/24" via "$4" src "192.168.$2.1" && ip -n "$1" route add "fd0$3::/64" via "$5" src "fd0$2::1" ||
    fail "no routes at $1"
}
net a 1 2 10.9.0.2 fd00::2
net b 2 1 10.9.0.1 fd00::1
ip -n c route add 192.168.2.0/24 via 10.9.0.2

key() { # key NUMBER: another one for each
  printf '0x%064d%08d' "$1" "$1"
}
# tunnel REQID SPI OUTER-A OUTER-B: a pair for each family inside.
tunnel() {
  local reqid=$1 spi=$2 a=$3 b=$4 line host src dst from to
  for line in "$a $b 192.168.1.0/24 192.168.2.0/24" "$b $a 192.168.2.0/24 192.168.1.0/24" \
    "$a $b fd01::/64 fd02::/64" "$b $a fd02::/64 fd01::/64"; do
    read -r src dst from to <<<"$line"
    spi=$((spi + 1))
    for host in a b; do
      ip -n $host xfrm state add src "$src" dst "$dst" proto esp spi 0x$spi reqid "$reqid" mode tunnel replay-window 32 \
        aead 'rfc4106(gcm(aes))' "$(key $spi)" 128 sel src "$from" dst "$to" || fail "no tunnel at $host"
    done
  done
}
pad() { # pad HOST REQID REMOTE PEER OWN
  on "$1" mkdir -p /etc/latchkey
  printf '[[sa]]\nreqid = %s\nremote = ["%s"]\nid = "%s"\nlocal_id = "%s"\n' "$2" "$3" "$4" "$5" |
    on "$1" tee -a /etc/latchkey/pad.toml >/dev/null
}
policy() { # policy FILE DIRECTION PORT-KEY ID [MODE]
  printf 'latchkey = 1\napplication = "tunnel"\n[protection.t]\n%b[peer.p]\nid = ["%s"]\n[[rule]]\nname = "tunnel"\ndirection = "%s"\n%s = ["8080-8089"]\naction = "protect"\nprotection = "t"\npeer = "p"\n' \
    "${5:+mode = \"$5\"\\n}" "$4" "$2" "$3" >"$1"
}
tunnel 7 100 10.9.0.1 10.9.0.2
pad a 7 10.9.0.2 bob alice
pad b 7 10.9.0.1 alice bob
policy "$LAB/in.toml" in local_port alice tunnel
policy "$LAB/out.toml" out remote_port bob tunnel
policy "$LAB/either.toml" out remote_port bob
policy "$LAB/transport.toml" out remote_port bob transport
spd_save a
spd_save b
start_broker a
start_broker b

# A kernel without nf_tables cannot keep clear fragments out of a tunnel: no latch, unless root has said who does.
said=$(once_latched a "$LAB/out.toml" 'connect 192.168.2.1 8088')
if [ "$said" = "= connect: EPROTONOSUPPORT" ]; then
  want_refusal a unsupported
  echo "good: without nf_tables there is no tunnel latch"
  stop_broker a
  stop_broker b
  for host in a b; do
    on $host iptables-legacy -t raw -A PREROUTING -f -p tcp -m policy --dir in --pol none -j DROP &&
      printf 'latchkey = 1\nclear_fragments = "dropped"\n' | on $host tee /etc/latchkey/system.toml >/dev/null || fail "nothing drops fragments at $host"
  done
  start_broker a
  start_broker b
else
  expect_eq "the kernel bans fragments" "$said" "= connect: ECONNREFUSED"
fi

capture wire
serve b srv4 "$LAB/in.toml" 192.168.2.1 8080
serve b srv6 "$LAB/in.toml" :: 8081
latched a cli4 "$LAB/out.toml" 'connect 192.168.2.1 8080'
expect cli4 ok
want cli4 'echo canary-tunnel-4' canary-tunnel-4
latched a cli6 "$LAB/out.toml" 'connect fd02::1 8081'
expect cli6 ok
want cli6 'echo canary-tunnel-6' canary-tunnel-6
latched a cli46 "$LAB/either.toml" 'connect 192.168.2.1 8081'
expect cli46 ok
want cli46 'echo canary-tunnel-46' canary-tunnel-46
want_latches a 2 'ESTABLISHED [0-9]+ 192\.168\.2\.1 bob alice tunnel aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED [0-9]+ fd02::1 bob alice tunnel aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8081 fd01::1 alice bob tunnel aes-gcm-16:256 -'
check "list says tunnel" grep -q ' esp/tunnel/aes-gcm-16:256 ' <(on a latchkey list)
check "list --spd too" grep -q 'socket .*esp tunnel reqid 7' <(on a latchkey list --spd)
wire_protected wire a b canary-tunnel
expect_eq "nothing of the inside on the wire" "$(packets wire 'net 192.168.0.0/16 or net fd01::/64 or net fd02::/64')" 0

# The mode is held to, and what is clear gets in nowhere.
expect_eq "transport asked" "$(once_latched a "$LAB/transport.toml" 'connect 192.168.2.1 8080')" "= connect: EPROTO"
want_refusal a weak-protection
refuses_clear c 192.168.2.1 8080
refuses_clear c 192.168.2.1 8081

# A broker that is killed leaves the tunnel's latch in force, and its next one takes it over.
kill_broker b
want cli4 'echo canary-tunnel-5' canary-tunnel-5
start_broker b
want_latches b 1 'ESTABLISHED 8080 192\.168\.1\.1 alice bob tunnel aes-gcm-16:256 -'
want cli4 'echo canary-tunnel-6' canary-tunnel-6

# Another peer's tunnel for the same inside breaks it.
tell cli4 recv
pad a 9 10.9.0.3 mallory alice
for line in '10.9.0.1 10.9.0.3 192.168.1.0/24 192.168.2.0/24 901' '10.9.0.3 10.9.0.1 192.168.2.0/24 192.168.1.0/24 902'; do
  read -r src dst from to spi <<<"$line"
  ip -n a xfrm state add src "$src" dst "$dst" proto esp spi 0x$spi reqid 9 mode tunnel replay-window 32 \
    aead 'rfc4106(gcm(aes))' "$(key $spi)" 128 sel src "$from" dst "$to"
done
expect cli4 ECONNRESET
want_refusal a conflict-sa
ip -n a xfrm state delete dst 10.9.0.3 src 10.9.0.1 proto esp spi 0x901
ip -n a xfrm state delete dst 10.9.0.1 src 10.9.0.3 proto esp spi 0x902
wire_protected wire a b canary-tunnel
end cli6
end cli46
stop_broker a
stop_broker b
spd_unchanged a
spd_unchanged b
