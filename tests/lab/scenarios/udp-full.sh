# The tables of the datagram filter are full: a UDP socket that needs room there is refused, hears nothing and sends nothing; those that have theirs go on; and so do new ones when there is room again.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml"
# More than 256 places for each socket of this one: every second of 256 networks is shut.
policy_header "$LAB/wide.toml"
{
  printf '[peer.them]\nid = ["alice"]\n'
  for first in 0 128; do
    printf '[[rule]]\ndirection = "in"\nprotocol = "udp"\nremote = [%s]\naction = "discard"\n' "$(seq -f '"10.77.%g.0/24"' -s ', ' $first 2 $((first + 127)))"
  done
  printf '[[rule]]\ndirection = "in"\nprotocol = "udp"\naction = "protect"\nprotection = "strong"\npeer = "them"\n'
} >>"$LAB/wide.toml"
manual_sa a b 7 alice bob
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp sport 9001 dir out tmpl proto esp reqid 7 mode transport || fail "no policy on a"
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080'
expect srv ok
latched b full "$LAB/wide.toml" 'timeout 60' 'udp-fill 20000 400'
expect full ok
answer full 60
echo "good: $REPLY"
[[ $REPLY =~ :\ ([0-9]+)\ then\ ([A-Z]+)$ ]] && [ "${BASH_REMATCH[1]}" -ge 200 ] && [ "${BASH_REMATCH[1]}" -lt 400 ] || fail "it is not full: $REPLY"
port=$((20000 + BASH_REMATCH[1]))
want_refusal b limit
# The one that was refused, and one of another program; one that was held before goes on.
latched b late "$LAB/wide.toml" 'udp-bind-anyway :: 8081'
answer late
check "another program's is refused: $REPLY" [ "${REPLY#*: }" != ok ]
for way in "10.9.0.2 $port" '10.9.0.2 8081' 'fd00::2 8081' '10.9.0.2 8080'; do
  once c "udp-from $way 9000 clear" >/dev/null
  once a "udp-from $way 9001 canary" >/dev/null
done
want srv recvfrom 'canary 10.9.0.1'
sock a sink 'udp-bind 0.0.0.0 9002'
expect sink ok
want srv 'sendto 10.9.0.1 9002 canary-answer' ok
want sink recvfrom 'canary-answer 10.9.0.2'
for name in full late; do
  want $name 'timeout 1' ok
  want $name recvfrom timeout
  ask $name 'sendto 10.9.0.3 9000 canary-out'
  check "nor does it send: $REPLY" [ "${REPLY#*: }" != ok ]
done
expect_eq "nothing of it in clear, there or back" "$(clear_octets wire canary-)" 0

# Room again.
want full udp-empty ok
bound() { [ "$(once_latched b "$LAB/in.toml" 'udp-bind 0.0.0.0 8082')" = "= udp-bind: ok" ]; }
check "the next one is held" retry 20 bound
