# What somebody on the way can do to UDP sockets: ESP sent again, sources made up, ICMP errors, the tag of an SA that is gone; and who has a peer's address after it. Nothing of it is delivered.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

link() { "${python[@]}" "$programs/wire.py" "$@" || fail "wire.py $*"; }
xfrm_count() { on b cat /proc/net/xfrm_stat | awk -v name="$1" '$1 == name { print $2 }'; }
policy_in "$LAB/in.toml" '"8080-8089"' alice mallory
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
manual_sa a b 7 alice bob
start_broker a
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind :: 8080' 'timeout 3'
expect srv ok
expect srv ok
latched a cli "$LAB/out.toml" 'udp-new 10.9.0.2'
expect cli ok
latched a con "$LAB/out.toml" 'udp 10.9.0.2 8080 9100'
expect con ok
# round NAME TEXT: there and back. Whatever came before would be read first.
round() {
  if [ "$1" = con ]; then want con "send $2" ok; else want "$1" "sendto 10.9.0.2 8080 $2" ok; fi
  want srv udp-answer "$2"
  want "$1" recv "$2"
}
round cli canary-one
round con canary-two

# ESP sent again, either way: counted, and that is all.
packets wire esp >/dev/null # until now, it is in the file
replays=$(xfrm_count XfrmInStateSeqError)
for way in '10.9.0.1 10.9.0.2' '10.9.0.2 10.9.0.1'; do
  # shellcheck disable=SC2086
  expect_eq "sent again" "$(link replay "$LAB/wire.pcap" $way)" 2
done
expect_eq "counted" "$(xfrm_count XfrmInStateSeqError)" $((replays + 2))
round cli canary-three
round con canary-four

# Made-up sources, the peer's and our own; on the link a plain socket hears them.
sock b plain 'udp-bind 0.0.0.0 8090'
expect plain ok
link udp 10.9.0.1 10.9.0.2 9100 8090 clear-control
want plain recvfrom 'clear-control 10.9.0.1'
name=$(on a ss -Hlun 'not sport = :9100' | awk 'NR == 1 { print $4 }')
for source in 10.9.0.1 10.9.0.2 10.9.0.3 127.0.0.1 fd00::1 fd00::2 ::1; do
  to=10.9.0.2
  [[ $source != *:* ]] || to=fd00::2
  link udp $source $to 9100 8080 clear-to-srv
done
link udp 10.9.0.2 10.9.0.1 8080 9100 clear-to-con
for source in 10.9.0.1 10.9.0.2 10.9.0.3 127.0.0.1; do link udp $source 10.9.0.1 8080 "${name##*:}" clear-to-cli; done
round cli canary-five
round con canary-six

# ICMP errors: about ESP they are about nobody. Each about the flow itself is told once to who is connected, and
# nothing is lost but that call; what is too large for the path that one tells of goes in smaller pieces.
packets wire esp >/dev/null
link unreachable 10.9.0.2 10.9.0.1 "$LAB/wire.pcap"
round con canary-seven
link refused 10.9.0.2 10.9.0.1 8080 9100
want con 'send canary-refused' ECONNREFUSED
link refused 10.9.0.2 10.9.0.1 8080 "${name##*:}"
round cli canary-eight
round con canary-nine
link too-big 10.9.0.2 10.9.0.1 8080 9100 600
want con 'send canary-large' EMSGSIZE
want con 'send-of 3000' ok
want srv recv-size '3002 <>'
check "in pieces" [ "$(packets wire 'src host 10.9.0.1 and ip proto 50 and ip[6:2] & 0x3fff != 0')" -ge 2 ]
round con canary-ten

# A packet in clear that a firewall gives the tag of an SA passes for one under it no more than any other, while it is there and after.
mark=$(ip -n b -d xfrm state list src 10.9.0.1 dst 10.9.0.2 | sed -n 's/.*output-mark \([0-9a-fx]*\).*/\1/p')
on b iptables-legacy -t mangle -A PREROUTING -p udp --dport 8080 -m policy --dir in --pol none -j MARK --set-mark "${mark:?no tag}" ||
  fail "no mark at b"
mismatches=$(xfrm_count XfrmInTmplMismatch)
link udp 10.9.0.1 10.9.0.2 9999 8080 tag-alive
want srv recvfrom timeout
expect_eq "dropped for want of the SA" "$(xfrm_count XfrmInTmplMismatch)" $((mismatches + 1))
gone() { ! on b ip xfrm policy list dir out | grep -q 'dst 10.9.0.1.*sport 8080'; }
unserved=$(on b ip xfrm policy list dir out | grep -c 'dst 10.9.0.1.*sport 8080')
check "alice has an entry" [ "$unserved" -ge 1 ]
sa_delete a b 7
check "alice's entry goes with her SAs" retry 10 gone
link udp 10.9.0.1 10.9.0.2 9999 8080 tag-dead
on b iptables-legacy -t mangle -F PREROUTING

# Somebody else whom the rules allow has her address, at once after her: not her flow.
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp sport 9300 dport 8080 dir out tmpl proto esp reqid 11 mode transport || fail "no policy on a"
manual_sa a b 11 mallory bob
want_refusal b conflict-sa
once a 'udp-from 10.9.0.2 8080 9300 canary-mallory' >/dev/null
check "his came, as ESP" [ "$(on b ip -s xfrm state list src 10.9.0.1 dst 10.9.0.2 reqid 11 | grep -c '([1-9][0-9]* packets\|, [1-9][0-9]*(packets)')" -ge 1 ]
sa_delete a b 11
# She is back, and the next thing that is heard is hers.
manual_sa a b 7 alice bob
ip -n a xfrm policy update src 10.9.0.1 dst 10.9.0.2 proto udp sport 9300 dport 8080 dir out tmpl proto esp reqid 7 mode transport
heard() {
  once a 'udp-from 10.9.0.2 8080 9300 canary-back' >/dev/null
  ask srv recvfrom
  [ "${REPLY#*: }" != timeout ]
}
retry 20 heard || fail "alice is not heard again"
expect_eq "alice, and nothing of others" "${REPLY#*: }" 'canary-back ::ffff:10.9.0.1'
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
check "what was made up was seen" [ "$(clear_octets wire clear-to-srv)" -ge 7 ]
