# Connected UDP is latched as TCP is: both families, v4-mapped, drained, connected anew, to somebody else too, dissolved, broken.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
for i in a:bob b:alice; do
  policy_out "$LAB/udp-${i%:*}.toml" '"8080-8089"' "${i#*:}"
  sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/udp-${i%:*}.toml"
done
capture wire
control wire

# pair PORT ADDRESS-OF-A ADDRESS-OF-B: a socket at each end, connected to the other's.
pair() {
  latched b "srv$1" "$LAB/udp-b.toml" "udp $2 $1 $1"
  latched a "cli$1" "$LAB/udp-a.toml" "udp $3 $1 $1"
  expect "srv$1" ok
  expect "cli$1" ok
  want "cli$1" "send canary-there-$1" ok
  want "srv$1" recv "canary-there-$1"
  want "srv$1" "write canary-back-$1" ok
  want "cli$1" read "canary-back-$1"
}
pair 8080 10.9.0.1 10.9.0.2
pair 8081 fd00::1 fd00::2
pair 8082 ::ffff:10.9.0.1 ::ffff:10.9.0.2
pair 8083 10.9.0.1 10.9.0.2
want_latches a 1 'ESTABLISHED 8080 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED 8081 fd00::2 bob alice transport aes-gcm-16:256 -'
want_latches a 1 'ESTABLISHED 8082 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
want_latches b 4 'ESTABLISHED 808. .* alice bob transport aes-gcm-16:256 -'
# A send that names an address goes under the latch, or not at all.
want cli8080 'sendto 10.9.0.2 8080 canary-named' ok
want srv8080 recv canary-named
want cli8080 'sendto 10.9.0.3 8080 canary-elsewhere' ENOKEY
# Connected anew: one latch still, and the other one's peer gets nothing.
want cli8083 'again 10.9.0.2 8080' ok
want_latches a 4 'ESTABLISHED 808. .*'
want cli8083 'again 10.9.0.2 8083' ok
want cli8083 'send canary-again' ok
want srv8083 recv canary-again
wire_protected wire a b canary

# Without a connection it goes under the same SAs, or not at all. (Nobody has the port: b says so in clear, and quotes it.)
expect_eq "not connected" "$(once_latched a "$LAB/udp-a.toml" 'udp-send 10.9.0.2 8080 free')" "= udp-send: ok"
expect_eq "nor to who has none" "$(once_latched a "$LAB/udp-a.toml" 'udp-send 10.9.0.3 8080 free')" "= udp-send: ENOKEY"

# Connected anew to somebody else: the latch with the first is over, what he has sent and nobody has read is gone, and the new one is heard.
policy_out "$LAB/both.toml" '"8080-8089"' bob carol
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/both.toml"
manual_sa a c 5 alice carol
ip -n c xfrm policy add src 10.9.0.3 dst 10.9.0.1 proto udp dport 8087 dir out tmpl proto esp reqid 5 mode transport || fail "no policy on c"
latched b srv8087 "$LAB/udp-b.toml" 'udp 10.9.0.1 8087 8087'
latched a cli8087 "$LAB/both.toml" 'udp 10.9.0.2 8087 8087' 'timeout 1'
expect srv8087 ok
for i in 1 2; do expect cli8087 ok; done
for way in early late; do want srv8087 "send canary-$way" ok; done
want cli8087 recv canary-early
check "the other is queued" retry 5 on a sh -c "ss -Hun 'sport = :8087' | awk '\$1 > 0 { found = 1 } END { exit !found }'"
want cli8087 'again 10.9.0.3 8087' ok
want cli8087 recv timeout
want_latches a 1 'ESTABLISHED 8087 .*'
want_latches a 1 'ESTABLISHED 8087 10\.9\.0\.3 carol alice transport aes-gcm-16:256 -'
once c 'udp-from 10.9.0.1 8087 8087 canary-carol' >/dev/null
want cli8087 recv canary-carol
want srv8087 'send later' ok # (nobody there: a says so in clear, and quotes it)
want cli8087 recv timeout
for name in cli8087 srv8087; do end $name; done
sa_delete a c 5
ip -n c xfrm policy delete src 10.9.0.3 dst 10.9.0.1 proto udp dport 8087 dir out
expect_eq "none of it in clear" "$(clear_octets wire canary)" 0

# From here on there is clear traffic, of c and of b's other programs, on purpose.
# What was queued before the latch is never seen; natively it is.
queued() { # queued NAME: bound, and then a datagram of the later peer, and one of somebody else
  expect "$1" ok
  once b 'udp-from 10.9.0.1 8085 8085 early' >/dev/null
  once c 'udp-from 10.9.0.1 8085 8085 strange' >/dev/null
  retry 5 on a sh -c "ss -Hlun 'sport = :8085' | awk '\$2 > 0 { found = 1 } END { exit !found }'" || fail "nothing is queued"
}
sock a plain 'udp-bind 0.0.0.0 8085'
queued plain
want plain 'again 10.9.0.2 8085' ok
want plain recv early
end plain
latched b srv8085 "$LAB/udp-b.toml" 'udp 10.9.0.1 8085 8086'
expect srv8085 ok
# (Behind the fence a datagram of whom a rule protects does not get so far.)
_under="latchkey run --no-fence -p $LAB/udp-a.toml --" sock a late 'udp-bind 0.0.0.0 8085'
queued late
want late 'again 10.9.0.2 8086' ok
want late 'timeout 1' ok
want late recv timeout
# Nor what comes in clear under the flow's own addresses afterwards.
end srv8085
once b 'udp-from 10.9.0.1 8085 8086 spoofed' >/dev/null
want late recv timeout
# Dissolved: no latch, and others are heard again.
want_latches a 5 'ESTABLISHED 808. .*'
want late disconnect ok
want_latches a 4 'ESTABLISHED 808. .*'
once c 'udp-from 10.9.0.1 8085 8085 afterwards' >/dev/null
want late recv afterwards
end late

# No SA: the send says so, and does not make event loops spin with EAGAIN.
sa_delete a b 7
want cli8083 'send lost' ENOKEY
manual_sa a b 7 alice bob
retry 10 _shows a 'ESTABLISHED 8083 .* -' 1 || fail "no latch"
want cli8083 'send found' ok
want srv8083 recv found
# Closed: gone.
want cli8083 close ok
want_latches a 0 '.* 8083 .*'

capture broken
# Another peer's SA: whoever waits hears ECONNRESET, and so it stays.
tell cli8080 recv
tell srv8080 read
tell cli8081 epoll
tell srv8081 recv
sleep 0.5
for name in cli8080 srv8080 cli8081 srv8081; do silent $name; done
impostor
for name in cli8080 srv8080 cli8081 srv8081; do expect $name ECONNRESET; done
want_latches a 3 'BROKEN 808. .* bob alice transport aes-gcm-16:256 conflict-sa'
for name in cli8080 cli8081 cli8082 srv8082; do
  want $name 'send canary-after' ECONNRESET
  want $name 'write canary-after' ECONNRESET
  want $name recv ECONNRESET
done
expect_eq "nothing in clear" "$(clear_octets broken canary)" 0
expect_eq "nothing but ESP" "$(non_esp broken a b)" 0
for name in cli8080 srv8080 cli8081 srv8081 cli8082 srv8082 cli8083 srv8083; do end $name; done
stop_broker a
stop_broker b
