# The latch of each datagram: two peers of one UDP socket have latches of their own, listed and told with what they send; under another's, or a broken one, nothing is sent; a socket's own request.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice carol
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
for host in a b c; do start_broker $host; done
capture wire
latched b srv "$LAB/in.toml" 'udp-new ::' 'latches 1' 'udp-wish-bind :: 8080' 'timeout 2'
expect srv ok
expect srv 1
expect srv ok
expect srv ok
for host in a c; do
  latched $host cli-$host "$LAB/out.toml" 'udp-new 10.9.0.2'
  expect cli-$host ok
  want cli-$host "sendto 10.9.0.2 8080 canary-$host" ok
  # What the server sees of it, and answers under the same latch.
  ask srv recv-latch
  echo "good: $REPLY"
  read -r _ text word id <<<"$REPLY"
  expect_eq "it came with its latch" "$text $word" "canary-$host latch"
  declare "latch_$host=$id"
  want srv "answer-under $id canary-back-$host" ok
  want cli-$host recv "canary-back-$host"
done
# They are those that `latchkey list` shows, and the program is told the same of them.
# shellcheck disable=SC2154
check "they differ" [ "$latch_a" != "$latch_c" ]
# Who did not ask for latches sends nothing under one.
want cli-a "send-under 10.9.0.2 8080 $latch_a canary-unasked" EPERM
list_of() { # list_of HOST: the IPv4 peers of its UDP sockets: ID STATE PEER REASON
  on "$1" latchkey list --json | "${python[@]}" -c "import json, sys
for each in json.load(sys.stdin)['latches']:
    if each['listener'] and '.' in each['remote']['address']: print(each['id'], each['state'], each['peer_id'], each['reason'])"
}
expect_eq "b lists both" "$(list_of b)" "$latch_a ESTABLISHED alice None
$latch_c ESTABLISHED carol None"
want srv "peer-info $latch_a" '2 alice'
want srv "peer-info $latch_c" '2 carol'
want srv 'peer-info 99' ENOTCONN
want srv state 1
want srv peer-id ENODATA
want srv xfrm EPERM
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'

# Under the other's latch, or none of the socket's, nothing is sent.
before=$(esp_packets wire b a)
want srv "send-under ::ffff:10.9.0.1 9000 $latch_c canary-wrong" EPERM
want srv 'send-under ::ffff:10.9.0.1 9000 99 canary-wrong' ECONNRESET
# Broken by the administrator: neither is sent under it, nor anything taken in; the other goes on.
on b latchkey break "$latch_a" || fail "it does not break"
want srv "send-under ::ffff:10.9.0.1 9000 $latch_a canary-broken" ECONNRESET
want srv 'sendto ::ffff:10.9.0.1 9000 canary-broken' ECONNRESET
expect_eq "nothing was sent to a" "$(esp_packets wire b a)" "$before"
expect_eq "it is listed" "$(list_of b | head -n 1)" "$latch_a BROKEN alice admin"
want srv "peer-info $latch_a" '3 alice'
want cli-a 'sendto 10.9.0.2 8080 canary-broken' ok
want srv recv-latch timeout
check "what was not taken in is counted: $(on b latchkey show 1 | grep ^dropped)" \
  [ "$(on b latchkey show 1 | sed -n 's/^dropped: //p')" -gt 0 ]
# So it is under the next broker, by the same id; the others have latches anew.
kill_broker b
start_broker b
expect_eq "it is listed still" "$(list_of b | head -n 1)" "$latch_a BROKEN alice admin"
latch_c=$(list_of b | sed -n 's/ ESTABLISHED carol.*//p')
want cli-a 'sendto 10.9.0.2 8080 canary-broken' ok
want cli-c 'sendto 10.9.0.2 8080 canary-c' ok
want srv recv-latch "canary-c latch $latch_c"
on b latchkey resume "$latch_a" || fail "it is not resumed"
want cli-a 'sendto 10.9.0.2 8080 canary-again' ok
want srv recv-latch "canary-again latch $latch_a"
# Marks are the program's own affair, and without either there is no word of them.
want srv 'marks 1' 1
want cli-a 'sendto 10.9.0.2 8080 canary-both' ok
want srv recv-latch "canary-both mark latch $latch_a"
want srv 'marks 0' 0
want srv 'latches 0' 0
want cli-a 'sendto 10.9.0.2 8080 canary-none' ok
want srv recv-latch canary-none

# A connected socket has one latch.
latched a pinned "$LAB/out.toml" 'udp 10.9.0.2 8080' 'latches 1'
expect pinned ok
expect pinned 1
want pinned state 2
want pinned peer-id bob
id=$(on a latchkey list --json | "${python[@]}" -c "import json, sys
print(*[each['id'] for each in json.load(sys.stdin)['latches'] if each['remote'] and not each['listener']])")
want pinned "send-under - 0 $id canary-pinned" ok
want srv udp-answer canary-pinned
want pinned recv-latch "canary-pinned latch $id"
want pinned "send-under - 0 $((id - 1)) canary-pinned" ECONNRESET

# A socket's own request, where the policy asks for nothing: this peer alone is heard.
printf 'latchkey = 1\napplication = "free"\n' >"$LAB/free.toml"
wish='[[rule]]|action = "protect"|peer = "p"|[peer.p]|id = ["carol"]'
latched b wished "$LAB/free.toml" "udp-wish 10.9.0.2 $wish" 'udp-wish-bind 0.0.0.0 8081' 'timeout 2'
expect wished ok
expect wished ok
expect wished ok
want wished "wish-again $wish" EISCONN
want cli-a 'sendto 10.9.0.2 8081 canary-alice' ok
want cli-c 'sendto 10.9.0.2 8081 canary-carol' ok
want wished udp-answer canary-carol
want cli-c recv canary-carol
want wished recvfrom timeout
# And spoken to, whom it did not hear too, and under a broker that starts anew.
spoken() {
  want wished 'sendto 10.9.0.1 9000 canary-wished' EKEYREJECTED
  want wished 'sendto 10.9.0.3 9000 canary-wished' ok
  want heard recvfrom 'canary-wished 10.9.0.2'
}
sock c heard 'udp-bind 10.9.0.3 9000'
expect heard ok
spoken
kill_broker b
start_broker b
spoken
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
