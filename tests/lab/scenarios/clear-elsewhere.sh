# A socket that goes in clear by its latch does so to that one end alone: what it sends elsewhere is the SPD's to judge.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_header "$LAB/optional.toml"
printf '[peer.them]\nid = ["carol"]\n[[rule]]\nname = "perhaps"\ndirection = "out"\nprotocol = "udp"\nremote = ["10.9.0.3"]\nremote_port = ["8080-8089"]\naction = "protect-or-bypass"\nprotection = "strong"\npeer = "them"\n' >>"$LAB/optional.toml"
start_broker a
capture wire
for i in b c; do
  sock "$i" "srv$i" 'timeout 3' 'udp-bind 0.0.0.0 8080'
  for _ in 1 2; do expect "srv$i" ok; done
done
# The system lets nothing through to b.
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 dir out action block priority 100 || fail "no block"
# No fence, which would stop what goes out.
_under="latchkey run --no-fence -p $LAB/optional.toml --" sock a cli 'timeout 3' 'udp 10.9.0.3 8080 9000'
for _ in 1 2; do expect cli ok; done
check "its latch is in clear" grep -q ' CLEAR ' <(on a latchkey list)
want cli 'send clear-carol' ok
want srvc udp-answer clear-carol
want cli recv clear-carol
want cli 'sendto 10.9.0.2 8080 canary-elsewhere' EPERM
want srvb recvfrom timeout
expect_eq "nothing of it on the wire" "$(clear_octets wire canary)" 0
# Its latch goes on.
want cli 'send clear-again' ok
want srvc recvfrom 'clear-again 10.9.0.1'
