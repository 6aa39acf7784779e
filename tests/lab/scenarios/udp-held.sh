# A held UDP socket beside others: what came before it was held, what a refused one hears, a fork that reads too, what the kernel is to cut up, an SPD that changes, a flow that is closed.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
sed 's/^\[protection.strong\]/&\nmode = "tunnel"/' "$LAB/in.toml" >"$LAB/refused.toml"
# SAs that name no addresses in their selectors: a may send under carol's, too.
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
key=$(ip -n b xfrm state list src 10.9.0.3 dst 10.9.0.2 | sed -n 's/.*aead /aead /p')
spi=$(awk '$1 == "10.9.0.3" && $2 == "10.9.0.2" { print $3 }' "$LAB/sa.9")
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 9 mode transport replay-window 32 $key || fail "no SA of carol's at a"
# a has no broker: its port says under whose SA it sends.
for way in '9001 7' '9002 9'; do
  ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp sport "${way% *}" dir out tmpl proto esp reqid "${way#* }" mode transport || fail "no policy on a"
done
start_broker b
capture wire
queued() { on b ss -Hlun "sport = :$1" | awk '$2 > 0 { found = 1 } END { exit !found }'; }

# One that was bound in clear, by a program that then goes on under the shim: from its first send on it is held, and
# what was in its queue is never read. (A control: without a send it is.)
for port in 8081 8082; do
  sock b "old$port" "udp-bind :: $port"
  expect "old$port" ok
  once c "udp-from 10.9.0.2 $port 9000 clear-early" >/dev/null
  once a "udp-from 10.9.0.2 $port 9003 clear-early" >/dev/null
  check "that is queued" retry 5 queued $port
  tell "old$port" "exec-under $LAB/in.toml -i $LAB/old$port.in"
  expect "old$port" ok # adopted
done
want old8081 recvfrom 'clear-early ::ffff:10.9.0.3'
ask old8082 'sendto ::ffff:10.9.0.3 9000 canary-old'
check "carol is sent nothing: $REPLY" [ "${REPLY#*: }" != ok ]
once a 'udp-from 10.9.0.2 8082 9001 canary-late' >/dev/null
want old8082 recvfrom 'canary-late ::ffff:10.9.0.1'

# A bind that is refused is a socket nevertheless: it hears nobody, by neither family.
latched b refused "$LAB/refused.toml" 'udp-bind-anyway :: 8083'
expect refused EPROTONOSUPPORT
for address in 10.9.0.2 fd00::2; do once c "udp-from $address 8083 9000 clear-refused" >/dev/null; done
once a 'udp-from 10.9.0.2 8083 9001 canary-refused' >/dev/null
want refused 'timeout 1' ok
want refused recvfrom timeout
check "nothing is queued" eval '! queued 8083'

# Parent and child read at once: each datagram goes to one of them, and none of carol's to any.
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080'
expect srv ok
tell srv 'shared-recv end'
once a 'udp-burst 10.9.0.2 8080 30 9001 canary-alice 9002 canary-carol' >/dev/null
once a 'udp-burst 10.9.0.2 8080 2 9001 end' >/dev/null
expect srv 'canary-alice: 30'
check "carol's came, as ESP" [ "$(on b ip -s xfrm state list spi "$spi" | grep -cE '\), 30\(packets\)')" = 1 ]

# What no rule speaks of goes by the SPD, also when it changes later.
sed 's/^direction = "in"/&\nremote = ["10.9.0.1"]/' "$LAB/in.toml" >"$LAB/open.toml"
latched b open "$LAB/open.toml" 'udp-bind 0.0.0.0 8084'
expect open ok
to_carol() { ask open "sendto 10.9.0.3 9000 $1"; }
to_carol clear-one
expect_eq "in clear, as nothing asks for more" "${REPLY#*: }" ok
# Datagrams for the kernel to cut up (UDP_SEGMENT): it does so for whom the rules let pass, and refuses what is to be ESP.
sock c pieces 'udp-bind 0.0.0.0 9005' 'timeout 1'
sock a whole 'udp-bind 0.0.0.0 9006'
for name in pieces pieces whole; do expect $name ok; done
want open 'udp-segments 10.9.0.3 9005 clear-pieces 100 5' ok
for i in 1 2 3 4 5; do want pieces recv-size '100 c.'; done
want pieces recv-size timeout
want open 'udp-segments 10.9.0.1 9006 canary-pieces 100 5' EIO
want open 'sendto 10.9.0.1 9006 canary-whole' ok
want whole recvfrom 'canary-whole 10.9.0.2'

block='src 0.0.0.0/0 dst 10.9.0.2/31 proto udp dir out' # newer than what lets it pass, and no more exact
# shellcheck disable=SC2086
ip -n b xfrm policy add $block action block || fail "no policy at b"
shut() { to_carol clear-shut && [ "${REPLY#*: }" != ok ]; }
check "not when the SPD blocks it" retry 10 shut
seen=$(clear_octets wire clear-shut)
to_carol clear-shut
expect_eq "and it is not on the wire" "$(clear_octets wire clear-shut)" "$seen"
# shellcheck disable=SC2086
ip -n b xfrm policy delete $block || fail "it stays"
opened() { to_carol clear-again && [ "${REPLY#*: }" = ok ]; }
check "and again when it does not" retry 10 opened

# A connected flow's SPD entry goes with it; nobody who has the port next meets it.
for port in 9001 9002; do ip -n a xfrm policy delete src 10.9.0.1 dst 10.9.0.2 proto udp sport $port dir out || fail "it stays at a"; done
ip -n a xfrm state delete src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" || fail "it stays at a"
start_broker a
latched a con "$LAB/out.toml" 'udp 10.9.0.2 8080 9300' 'send canary-connected'
expect con ok
expect con ok
want srv recvfrom 'canary-connected 10.9.0.1'
want con 'udp-segments 10.9.0.2 8080 canary-pieces 100 5' EIO
want con 'send canary-again' ok
want srv recvfrom 'canary-again 10.9.0.1'
entries() { on a ip xfrm policy list dir out | grep -c 'sport 9300'; }
check "it has one" [ "$(entries)" -ge 1 ]
want con close ok
none() { [ "$(entries)" = 0 ]; }
check "closed, it has none" retry 15 none
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
