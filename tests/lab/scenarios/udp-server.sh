# An unconnected UDP server and its clients: who has the right SAs is served, in both families and v4-mapped; others and clear datagrams never come in, while the broker is dead, too.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
for host in a b c; do start_broker $host; done
capture wire
latched b srv "$LAB/in.toml" 'udp-bind :: 8080'
expect srv ok
want srv 'timeout 3' ok
want_latches b 1 'LISTENER 8080 .*'

# round NAME ADDRESS TEXT: there and back.
round() {
  want "$1" "sendto $2 8080 canary-$3" ok
  want srv udp-answer "canary-$3"
  want "$1" recv "canary-$3"
}
for address in 10.9.0.2 fd00::2 ::ffff:10.9.0.2; do
  latched a "cli-$address" "$LAB/out.toml" "udp-new $address"
  expect "cli-$address" ok
  round "cli-$address" "$address" one
  round "cli-$address" "$address" two
done
# A client that is connected is served alike.
latched a pinned "$LAB/out.toml" 'udp 10.9.0.2 8080'
expect pinned ok
want pinned 'send canary-pinned' ok
want srv udp-answer canary-pinned
want pinned recv canary-pinned
wire_protected wire a b canary

# Who has other SAs sends under them, and is not heard.
latched c carol "$LAB/out.toml" 'udp-new 10.9.0.2'
expect carol ok
want carol 'sendto 10.9.0.2 8080 canary-carol' ok
came() { [ "$(esp_packets wire b c)" -gt 0 ]; }
check "carol's came, as ESP" retry 5 came
want srv recvfrom timeout
# Nor are clear datagrams, from whoever and under whatever port, v4 and v6.
clear_ones() {
  for address in 10.9.0.2 fd00::2; do
    once a "udp-from $address 8080 9000 clear" >/dev/null
    once c "udp-from $address 8080 9000 clear" >/dev/null
  done
}
clear_ones
want srv recvfrom timeout
# And the server sends to nobody else.
want srv 'sendto ::ffff:10.9.0.3 9000 canary-out' EKEYREJECTED
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
# A control: the same socket without the shim hears them.
sock b plain 'udp-bind :: 8090'
expect plain ok
once c 'udp-from 10.9.0.2 8090 9000 clear' >/dev/null
want plain recvfrom 'clear ::ffff:10.9.0.3'

# The broker is dead: who was served is, and who was not is not.
kill_broker b
clear_ones
want carol 'sendto 10.9.0.2 8080 canary-carol' ok
want srv recvfrom timeout
round cli-10.9.0.2 10.9.0.2 three
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0

# A clean stop keeps shut what was held, by the other family of a dual-stack socket, too.
stop_broker a
for address in 10.9.0.2 fd00::2 ::ffff:10.9.0.2; do
  ask "cli-$address" "sendto $address 8080 canary-stopped"
  check "after a clean stop nothing is sent to $address: $REPLY" [ "${REPLY#*: }" != ok ]
done
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
