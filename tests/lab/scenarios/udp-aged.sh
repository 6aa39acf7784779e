# One UDP socket sends to more places than it has room for: SPD entries that are idle age out while it sends, and no datagram is lost, in clear that is to be protected, or refused but for want of room.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_out "$LAB/out.toml" 9000 bob
policy_in "$LAB/in.toml" 9000 alice
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/out.toml" "$LAB/in.toml"
manual_sa a b 7 alice bob
start_broker a
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 9000'
expect srv ok
tell srv udp-echo
# c says nothing about what it has no socket for.
on c iptables-legacy -A INPUT -p udp -j DROP || fail "no rule"
entries() { on a ip xfrm policy list dir out | grep -c 'sport 9100'; }
bg a many latchkey run -p "$LAB/out.toml" -- "${python[@]}" "$programs/udp_aged.py"
check "it has no more room" retry 200 grep -q '^full' "$LAB/many.log"
full=$(entries)
check "entries stand for them ($full)" [ "$full" -ge 256 ]
check "it goes on to the end" retry 250 grep -q '^sent' "$LAB/many.log"
retry 5 eval '! kill -0 "$(cat "$LAB/many.pid")" 2>/dev/null' || fail "it hangs"
cat "$LAB/many.log"
sent=$(sed -n 's/^sent //p' "$LAB/many.log")
came() { [ "$(on a ip -s xfrm state list src 10.9.0.1 dst 10.9.0.2 | grep -c " $sent(packets)")" = 1 ]; }
check "all $sent to the peer left as ESP" retry 5 came
expect_eq "nothing of that in clear" "$(clear_octets wire canary)" 0
# 1,023 ports, the first of them again and again, 300 more, and three asked about anew.
for port in 10000 10001 11022 20000 20299; do
  check "clear to $port" [ "$(clear_octets wire "clear-$port")" -ge 1 ]
done
check "those that made way are told of" grep -q 'the oldest made way, [0-9]* until now' "$LAB/broker-a.log"
if grep -q '^refused' "$LAB/many.log"; then
  expect_eq "what was refused did not leave" "$(clear_octets wire clear-12000)" 0
fi
