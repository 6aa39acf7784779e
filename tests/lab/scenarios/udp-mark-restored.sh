# A firewall that keeps packets' marks for the others of their flow (CONNMARK): an SA's tag on a clear datagram, or on another's, proves nothing; who has the SA is heard, before and after a broker's death, and what is none of ours goes on.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml"
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
# An entry of b's own goes before whatever Latchkey adds.
ip -n b xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp sport 9300 dir in priority 100 action allow || fail "no policy on b"
spd_of_b() { ip -n b -d xfrm policy | sed 's/ index [0-9]*//' | grep -v 'add .* use '; }
spd_of_b >"$LAB/spd-before"
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind :: 8080' 'timeout 3'
sock b plain 'udp-bind :: 8090' 'timeout 3'
sock b tcp 'listen 0.0.0.0 9090' serve
for name in srv srv plain plain tcp tcp; do expect $name ok; done
for pair in '10.9.0.1 10.9.0.2' 'fd00::1 fd00::2'; do
  ip -n a xfrm policy add src "${pair% *}" dst "${pair#* }" dir out tmpl proto esp reqid 7 mode transport || fail "no policy on a"
done

# firewall SAVE-AND-RESTORE...: b's rules for what comes in; and one that counts what comes in clear and has a mark.
firewall() {
  local restore=$1 save=$2 tables
  for tables in iptables-legacy ip6tables-legacy; do
    # shellcheck disable=SC2086
    on b $tables -t mangle -F PREROUTING && on b $tables -F INPUT &&
      on b $tables -t mangle -A PREROUTING $restore && on b $tables -t mangle -A PREROUTING $save &&
      on b $tables -A INPUT -p udp -m mark ! --mark 0 -m policy --dir in --pol none || fail "no rules at b"
  done
}
marked() { # so many of them came
  { on b iptables-legacy -nvxL INPUT; on b ip6tables-legacy -nvxL INPUT; } | awk '/mark match/ { n += $1 } END { print n + 0 }'
}
heard() { # heard NAME TEXT ADDRESS: next of all
  local from=$3
  [[ $from == *:* ]] || from="::ffff:$from"
  want "$1" recvfrom "$2 $from"
}
# spoofed COUNT ADDRESS PORT...: datagrams in clear, with alice's address and the ports of a flow of hers; b's firewall gives
# so many of them a mark.
spoofed() {
  local before want=$1 to=$2 port
  shift 2
  before=$(marked)
  for port; do
    "${python[@]}" "$programs/wire.py" udp "${to%2}1" "$to" "$port" 8080 clear-spoofed || fail "wire.py"
  done
  expect_eq "of those with alice's address to $to, b gave a mark to" "$(($(marked) - before))" "$want"
}
both='10.9.0.2 fd00::2'
firewall '-m connmark ! --mark 0 -j CONNMARK --restore-mark' '-m mark ! --mark 0 -j CONNMARK --save-mark'
for to in $both; do
  sock a "cli-$to" "udp-bind ${to%2}1 9100"
  expect "cli-$to" ok
  for text in canary-one canary-two; do # the second with what was saved of the first
    want "cli-$to" "sendto $to 8080 $text" ok
    heard srv $text "${to%2}1"
    want "cli-$to" "sendto $to 8090 $text" ok # and a program without Latchkey
    heard plain $text "${to%2}1"
  done
  spoofed 1 "$to" 9100 9101
done
want srv recvfrom timeout

# Her address and the ports of her flow, under carol's SA: the firewall makes alice's tag of carol's.
key=$(ip -n b xfrm state list src 10.9.0.3 dst 10.9.0.2 | sed -n 's/.*aead /aead /p')
spi=$(ip -n b xfrm state | grep -A1 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.* spi \(0x[0-9a-f]*\) .*/\1/p')
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 9 mode transport replay-window 32 $key ||
  fail "no SA of carol's at a"
under() { # under REQID: what a sends to b
  ip -n a xfrm policy update src 10.9.0.1 dst 10.9.0.2 dir out tmpl proto esp reqid "$1" mode transport || fail "no policy on a"
}
before=$(esp_packets wire a b)
under 9
want cli-10.9.0.2 'sendto 10.9.0.2 8080 canary-carol' ok
check "it was sent" [ "$(esp_packets wire a b)" -gt "$before" ]
want srv recvfrom timeout
under 7

# What is none of ours: TCP and pings under the SA, datagrams in clear, and what b's own entry lets pass, marked or not.
expect_eq "TCP under the SA" "$(once a 'connect 10.9.0.2 9090' 'echo other' | tail -n 1)" '= echo: other'
expect_eq "pings under it" "$(once a 'timeout 2' 'ping 10.9.0.2' 'ping fd00::2' | grep -c 'ping: ok')" 2
once a 'udp-from 10.9.0.2 8090 9300 canary-own' >/dev/null
heard plain canary-own 10.9.0.1
for port in 9200 9300; do
  "${python[@]}" "$programs/wire.py" udp 10.9.0.1 10.9.0.2 $port 8090 clear-other || fail "wire.py"
  heard plain clear-other 10.9.0.1
done

# The broker is dead, and another comes.
kill_broker b
for to in $both; do spoofed 1 "$to" 9100; done
want srv recvfrom timeout
start_broker b
for to in $both; do spoofed 1 "$to" 9100; done
want srv recvfrom timeout
for to in $both; do
  want "cli-$to" "sendto $to 8080 canary-three" ok
  heard srv canary-three "${to%2}1"
done

# What restores the mark of a flow that has none takes the tag away: nothing is heard of new flows. With the mask all is well.
firewall '-j CONNMARK --restore-mark' '-j CONNMARK --save-mark'
dropped() { on b latchkey list --json | grep -o '"dropped":[^,]*' | grep -o '[0-9]*' | head -n 1; }
before=$(dropped)
once a 'udp-from 10.9.0.2 8080 9400 canary-lost' >/dev/null
want srv recvfrom timeout
check "the filter counts it: $before, $(dropped)" [ "$(dropped)" -gt "$before" ]
firewall '-j CONNMARK --restore-mark --mask 0xffff' '-j CONNMARK --save-mark --mask 0xffff'
once a 'udp-from 10.9.0.2 8080 9500 canary-four' >/dev/null
heard srv canary-four 10.9.0.1
spoofed 0 10.9.0.2 9500
want srv recvfrom timeout
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
check "what was made up was seen" [ "$(clear_octets wire clear-spoofed)" -ge 9 ]

proofs() { ip -n b xfrm policy list dir in | grep -c 'mark 0x'; }
check "entries of tags stand" [ "$(proofs)" -ge 2 ]
end srv
none_left() { [ "$(proofs)" = 0 ]; }
check "with the socket they go" retry 13 none_left
stop_broker b
diff "$LAB/spd-before" <(spd_of_b) || fail "the SPD of b is not as before"
echo "good: the SPD of b is as before"
