# Latches and listeners on b harm nobody else: forwarding, other programs, equal ports, ping, IKE.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
sed 's/"8080-8089"/8080/' "$LAB/in.toml" >"$LAB/b-in.toml"
sed 's/"8080-8089"/9090/' "$LAB/out.toml" | sed 's/"bob"/"alice"/' >"$LAB/b-out.toml"
sed 's/"8080-8089"/9090/' "$LAB/in.toml" | sed 's/"alice"/"bob"/' >"$LAB/a-in.toml"
# b has a second address and forwards from c to a's 10.8.0.1 and fd08::1 and back; a key manager's entries are there.
ip -n b addr add 10.9.0.22/24 dev eth0
on b sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
ip -n a addr add 10.8.0.1/32 dev lo
ip -n c addr add 10.8.0.3/32 dev lo
ip -n c route add 10.8.0.1 via 10.9.0.2 src 10.8.0.3
ip -n b route add 10.8.0.1 via 10.9.0.1
ip -n b route add 10.8.0.3 via 10.9.0.3
ip -n a route add 10.8.0.3 via 10.9.0.2
on b sysctl -qw net.ipv6.conf.all.forwarding=1
for host in a c; do on $host sysctl -qw net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0; done
ip -n a addr add fd08::1/128 dev lo nodad
ip -n c addr add fd08::3/128 dev lo nodad
ip -n c route add fd08::1 via fd00::2 src fd08::3
ip -n b route add fd08::1 via fd00::1
ip -n b route add fd08::3 via fd00::3
ip -n a route add fd08::3 via fd00::2
manual_sa a b 7 alice bob
ip -n b xfrm policy add src 10.7.0.0/24 dst 10.9.0.2 proto tcp dport 8080 dir in priority 100 action allow
ip -n b xfrm policy add src 10.9.0.2 dst 10.7.0.0/24 dir out priority 200 tmpl proto esp reqid 70 mode transport
# a's server on 9090 is a clear one that answers by ESP what comes from b's port 40001 alone.
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto tcp sport 9090 dport 40001 dir out priority 10 tmpl proto esp reqid 7 mode transport
for host in a b c; do spd_save $host; done

sock a a-clear 'listen :: 8080' serve
sock a a-peer 'listen :: 9090' serve
sock b b-clear 'listen :: 9000' serve
sock c c-clear 'listen :: 8080' serve
for name in a-clear a-peer b-clear c-clear; do expect $name ok; expect $name ok; done

others() { # others WHEN: everything that is none of Latchkey's business, each must work
  local text="clear-$1"
  {
    once c 'connect 10.8.0.1 8080' "echo $text-forwarded"
    once a 'connect 10.8.0.3 8080' "echo $text-forwarded-back"
    once c 'connect fd08::1 8080' "echo $text-forwarded-v6"
    once a 'connect fd08::3 8080 0 fd00::1' "echo $text-forwarded-back-v6"
    once b 'connect 10.9.0.1 9090' "echo $text-same-peer-and-port"
    once b 'connect fd00::1 8080 8080 fd00::2' "echo $text-source-port-v6"
    once b 'connect 10.9.0.3 8080 8080 10.9.0.22' "echo $text-source-port-other-address"
    once b 'connect 10.9.0.2 9000' "echo $text-same-host"
    once b 'connect 127.0.0.1 9000' "echo $text-loopback"
    once c 'connect 10.9.0.2 9000' "echo $text-other-server"
    once c 'connect fd00::2 9000' "echo $text-other-server-v6"
  } >"$LAB/others"
  expect_eq "$1: eleven connect" "$(grep -c 'connect: ok' "$LAB/others")" 11
  expect_eq "$1: eleven are echoed" "$(grep -c "echo: $text" "$LAB/others")" 11
  expect_eq "$1: pings of b" "$(once b 'timeout 2' 'ping 10.9.0.1' 'ping fd00::1' 'ping 10.9.0.3' | grep -c 'ping: ok')" 3
  expect_eq "$1: pings of a" "$(once a 'timeout 2' 'ping 10.9.0.2' 'ping fd00::2' | grep -c 'ping: ok')" 2
  for from in a b; do
    to=b address=10.9.0.2
    [ $from = a ] || { to=a; address=10.9.0.1; }
    bg $to "ike-$1-$to" timeout 5 socat -u UDP-RECV:500 -
    retry 5 on $to sh -c 'ss -Hlun "sport = :500" | grep -q .' || fail "no UDP server"
    echo "$text-ike" | on $from socat -u - "UDP-SENDTO:$address:500,sourceport=500"
    retry 5 grep -q "$text-ike" "$LAB/ike-$1-$to.log" || fail "$1: no datagram to port 500 of $to"
    end "ike-$1-$to"
  done
}
capture wire
others before

start_broker a
start_broker b
serve b srv "$LAB/b-in.toml" 10.9.0.2 8080
latched b srv6 "$LAB/b-in.toml" 'listen :: 8081'
expect srv6 ok
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080'
expect cli ok
want cli 'echo canary-latched-in' canary-latched-in
latched b out "$LAB/b-out.toml" 'connect 10.9.0.1 9090 40001 10.9.0.2'
expect out ok
want out 'echo canary-latched-out' canary-latched-out
want_latches b 2 'ESTABLISHED .*'
others during
want cli 'echo canary-latched-in' canary-latched-in
want out 'echo canary-latched-out' canary-latched-out
refuses_clear c 10.9.0.2 8080
expect_eq "nothing of the latched connections in clear" "$(clear_octets wire canary-latched)" 0
check "the clear ones are in clear" [ "$(clear_octets wire clear-during)" -gt 0 ]
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]

for name in cli out srv srv6; do end $name; done
stop_broker a
stop_broker b
for host in a b c; do spd_unchanged $host; done
others after
