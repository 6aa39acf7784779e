# One held UDP socket of which a rule protects one peer, bypasses another and discards a third; groups and broadcasts: heard from whom a rule bypasses, refused at once where a rule protects; what lets in does not let out.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

rule() { printf '[[rule]]\nname = "%s"\naction = "%s"\n' "$@"; } # rule NAME ACTION
policy_header "$LAB/mix.toml"
{
  printf '[peer.them]\nid = ["bob"]\n'
  rule open bypass
  printf 'protocol = "udp"\nremote = ["10.9.0.3"]\n'
  rule shut discard
  printf 'protocol = "udp"\nremote = ["10.9.0.4"]\n'
  rule all protect
  printf 'protection = "strong"\npeer = "them"\n'
} >>"$LAB/mix.toml"
policy_header "$LAB/few.toml"
{
  printf '[peer.them]\nid = ["bob"]\n'
  rule bob protect
  printf 'remote = ["10.9.0.2"]\nprotection = "strong"\npeer = "them"\n'
  rule rest bypass
} >>"$LAB/few.toml"
policy_header "$LAB/ask.toml"
{
  printf '[peer.them]\nid = ["bob"]\n'
  rule ask protect
  printf 'direction = "out"\nprotocol = "udp"\nremote_port = [8080]\nprotection = "strong"\npeer = "them"\n'
  rule rest bypass
} >>"$LAB/ask.toml"
ip -n c address add 10.9.0.4/24 dev eth0 || fail "c is not 10.9.0.4"
for host in a b c; do
  ip -n $host route add 224.0.0.0/4 dev eth0 && ip -n $host route add 255.255.255.255 dev eth0 || fail "no route to groups at $host"
done
manual_sa a b 7 alice bob
# b has no broker: what it sends from port 8080 goes under its SA, and the rest in clear.
ip -n b xfrm policy add src 10.9.0.2 dst 10.9.0.1 proto udp sport 8080 dir out tmpl proto esp reqid 7 mode transport || fail "no policy at b"
start_broker a
capture wire
sock b bob 'udp-bind 0.0.0.0 8080'
sock b bare 'udp-bind 0.0.0.0 9000' udp-broadcast
sock c open 'udp-bind 10.9.0.3 8080' udp-broadcast
sock c shut 'udp-bind 10.9.0.4 8080' udp-broadcast
latched a held "$LAB/mix.toml" 'timeout 3' 'udp-bind 0.0.0.0 8081' 'udp-join 239.1.1.1 10.9.0.1' udp-broadcast
latched a six "$LAB/mix.toml" 'timeout 3' 'udp-bind :: 8082' 'udp-join 239.1.1.1 10.9.0.1'
for name in bob bare bare open open shut shut held held held held six six six; do expect $name ok; done
dropped() { field a "^LISTENER $1 " dropped; }

# Each peer by its own rule, both ways.
want held 'sendto 10.9.0.2 8080 canary-bob' ok
want bob udp-answer canary-bob
want held recvfrom 'canary-bob 10.9.0.2'
want held 'sendto 10.9.0.3 8080 clear-open' ok
want open udp-answer clear-open
want held recvfrom 'clear-open 10.9.0.3'
want held 'sendto 10.9.0.4 8080 never-shut' EACCES
want_refusal a policy-discard

# What comes: from the one in clear, from the other under its SA, from the third never. Groups and broadcasts alike.
expect_eq "nothing was dropped" "$(dropped 8081) $(dropped 8082)" "0 0"
for to in 10.9.0.1 239.1.1.1 10.9.0.255 255.255.255.255; do
  for name in bare shut open; do
    want $name "sendto $to 8081 from-$name" ok
    want $name "sendto $to 8082 from-$name" ok
  done
  want held recvfrom 'from-open 10.9.0.3'
  want six recvfrom 'from-open ::ffff:10.9.0.3'
done
expect_eq "the others' are counted" "$(dropped 8081) $(dropped 8082)" "8 8"

# To many under a rule that protects: refused at once, whatever the call.
mark a
for group in 239.1.1.1 255.255.255.255 10.9.0.255; do
  want held "sendto $group 8083 never-group" EPROTONOSUPPORT
  ask held elapsed
  check "in ${REPLY#*: } ms" [ "${REPLY#*: }" -lt 1000 ]
done
want_refusal a unsupported
latched a con "$LAB/mix.toml" 'udp 10.9.0.255 8083' 'connect 10.9.0.255 8083'
for _ in 1 2; do expect con EPROTONOSUPPORT; done
expect_eq "no packet leaves for them" "$(packets wire 'src host 10.9.0.1 and (port 8083 or dst net 224.0.0.0/4 and udp)')" 0
# By a rule that bypasses they leave, and are heard.
sock c ear 'udp-bind 0.0.0.0 8085' 'udp-join 239.1.1.1 10.9.0.3'
latched a free "$LAB/few.toml" 'udp-bind 10.9.0.1 8084' udp-broadcast
for name in ear ear free free; do expect $name ok; done
want_latches a 1 'LISTENER 8084 .*'
for group in 239.1.1.1 255.255.255.255 10.9.0.255; do
  want free "sendto $group 8085 clear-group" ok
  want ear recvfrom 'clear-group 10.9.0.1'
done
expect_eq "in clear" "$(clear_octets wire clear-group)" 3

# A last rule that lets pass, of both directions, lets nothing out to where one for outgoing datagrams protects, and
# nothing in from there; whoever else asks is heard, before and after, and answered.
latched a way "$LAB/ask.toml" 'timeout 3' 'udp-bind :: 8086'
expect way ok
expect way ok
want ear 'sendto 10.9.0.1 8086 clear-before' ok
want way recvfrom 'clear-before ::ffff:10.9.0.3'
want way 'sendto ::ffff:10.9.0.3 8080 never-out' ENOKEY
want way 'sendto ::ffff:10.9.0.2 8080 canary-way' ok
want bob udp-answer canary-way
want way recvfrom 'canary-way ::ffff:10.9.0.2'
want open 'sendto 10.9.0.1 8086 clear-forged' ok
want ear 'sendto 10.9.0.1 8086 clear-heard' ok
want way recvfrom 'clear-heard ::ffff:10.9.0.3'
expect_eq "what was forged was dropped" "$(dropped 8086)" 1
want way 'sendto ::ffff:10.9.0.3 8085 clear-answer' ok
want ear recvfrom 'clear-answer 10.9.0.1'
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
check "it left under SAs" [ "$(esp_packets wire a b)" -ge 2 ]
expect_eq "nothing of what is discarded" "$(clear_octets wire never)" 0
check "and what was dropped was there" [ "$(clear_octets wire from-bare)" = 8 ]
