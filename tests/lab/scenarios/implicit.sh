# No policy of the program's own: what the SPD asks at connect and accept is latched, and kept when the SPD is flushed.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

# The classic: { rport 23 } under ESP with AES and HMAC-SHA1.
manual_sa a b 7 alice bob aes-cbc:256/hmac-sha1
spd_port a "10.9.0.1 10.9.0.2" 23 theirs esp 7
spd_port b "10.9.0.2 10.9.0.1" 23 ours esp 7
start_broker a
start_broker b
capture wire
control wire
implied() { # implied HOST NAME [COMMAND...]: under `latchkey run` without -p
  local host=$1 name=$2 _under="latchkey run --"
  shift 2
  sock "$host" "$name" "$@"
}
implied b srv 'listen 10.9.0.2 23' serve
expect srv ok
expect srv ok
implied a cli 'connect 10.9.0.2 23'
expect cli ok
want cli 'echo canary-implicit-1' canary-implicit-1
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-cbc:256 -'
want_latches b 1 'ESTABLISHED 23 10\.9\.0\.1 alice bob transport aes-cbc:256 -'
check "list says it is implicit" grep -q '(implicit)' <(on a latchkey list)
expect_eq "JSON too" "$(on b latchkey list --json | grep -c '"implicit": true')" 1
# What no SPD entry speaks of is left alone.
expect_eq "another port" "$(on a latchkey run -- "${python[@]}" "$programs/sock.py" 'connect 10.9.0.3 24')" "= connect: ECONNREFUSED"
# Halfway the SPD is flushed, on both ends: still ESP to the end.
on a ip xfrm policy flush
on b ip xfrm policy flush
want cli 'echo canary-implicit-2' canary-implicit-2
want cli 'echo canary-implicit-3' canary-implicit-3
wire_protected wire a b canary-implicit
# And with an entry that would have it in clear.
on a ip xfrm policy add dst 10.9.0.2 dir out action allow priority 0
on b ip xfrm policy add src 10.9.0.1 dir in action allow priority 0
want cli 'echo canary-implicit-4' canary-implicit-4
expect_eq "no packet with canary-implicit in clear" "$(clear_octets wire canary-implicit)" 0
# An SA of somebody else breaks it as any other.
tell cli recv
impostor
expect cli ECONNRESET
want_refusal a conflict-sa
end cli
# Where system.toml says so, implicit latches suspend, at both ends: nothing moves until the first peer is alone again.
end srv
sa_delete a b 9
for host in a b; do
  stop_broker $host
  on $host ip xfrm policy flush
  printf 'latchkey = 1\n[default]\non_break = "suspend"\n' | on $host sh -c 'mkdir -p /etc/latchkey; cat >/etc/latchkey/system.toml'
done
spd_port a "10.9.0.1 10.9.0.2" 23 theirs esp 7
spd_port b "10.9.0.2 10.9.0.1" 23 ours esp 7
start_broker a
start_broker b
implied b srv2 'listen 10.9.0.2 23' serve
expect srv2 ok
expect srv2 ok
implied a slow 'timeout 60' 'connect 10.9.0.2 23'
expect slow ok
expect slow ok
want slow 'echo canary-implicit-5' canary-implicit-5
expect_eq "it is shown" "$(on a latchkey list --json | grep -c '"disposition": "suspend"')" 1
impostor
want_latches a 1 'BROKEN [0-9]+ 10\.9\.0\.2 bob alice .* conflict-sa'
want_latches b 1 'BROKEN 23 10\.9\.0\.1 alice bob .* conflict-sa'
want slow 'send canary-implicit-6' ok
tell slow recv
silent slow
sa_delete a b 9
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice .* -'
want_latches b 1 'ESTABLISHED 23 10\.9\.0\.1 alice bob .* -'
expect slow canary-implicit-6 60
expect_eq "still nothing in clear" "$(clear_octets wire canary-implicit)" 0
end slow
end srv2
# What connects now is as the SPD is now: in clear.
sock b plain 'listen 10.9.0.2 25' serve
wait_listen b 25
expect_eq "a new one" "$(on a latchkey run -- "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 25' 'echo now-in-clear' | tail -n 1)" "= echo: now-in-clear"
check "which is seen" [ "$(clear_octets wire now-in-clear)" -ge 2 ]
