# The steps of README.md on two hosts of the lab: netcat is the client. (tests/lab/exec examples/implicit/story.sh)
set -u
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

manual_sa a b 7 alice bob aes-cbc:256/hmac-sha1
for host in a b; do
  bg $host "broker-$host" latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$host.log" || fail "no broker at $host"
done
on a "$example/spd" add client 10.9.0.1 10.9.0.2
on b "$example/spd" add server 10.9.0.2 10.9.0.1
capture wire
bg b telnetd latchkey run -- socat TCP-LISTEN:23,fork,reuseaddr EXEC:cat
wait_listen b 23
mkfifo "$LAB/keys"
bg a telnet latchkey run -- sh -c "exec nc 10.9.0.2 23 <>'$LAB/keys'"
type_in() { printf '%s\n' "$1" >"$LAB/keys"; }
shown() { retry 10 grep -qs "$1" "$LAB/telnet.log" || fail "$1 does not come back: $(cat "$LAB/telnet.log")"; }
type_in canary-telnet-1
shown canary-telnet-1
listed() { on "$1" latchkey list | grep -q " esp/aes-cbc:256/hmac-sha1(implicit) "; }
check "the client's end is latched, implicitly" retry 5 listed a
check "so is the server's" retry 5 listed b
check "list --spd knows the entries" grep -q '^system .* port 23 .*esp transport reqid 7' <(on a latchkey list --spd)
# The rule goes away, on both ends.
on a ip xfrm policy flush
on b ip xfrm policy flush
type_in canary-telnet-2
shown canary-telnet-2
expect_eq "no octet in clear" "$(clear_octets wire canary-telnet)" 0
expect_eq "ESP to the end, nothing else" "$(non_esp wire a b)" 0
check "and there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
# What begins now begins in clear.
expect_eq "a new one" "$(echo new-in-clear | on a latchkey run -- nc -q 3 10.9.0.2 23)" new-in-clear
check "is in clear" [ "$(clear_octets wire new-in-clear)" -ge 2 ]
kill "$(cat "$LAB/telnet.pid")" "$(cat "$LAB/telnetd.pid")"
