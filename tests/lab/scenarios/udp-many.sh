# One UDP socket with 1,000 peers, of which those are served whom the rules allow; 5,000 flows of one peer to it; and one that sends to 5,000 ports of a peer.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' '*.many'
policy_header "$LAB/out.toml"
printf '[[rule]]\ndirection = "out"\nprotocol = "udp"\naction = "protect"\nprotection = "strong"\n' >>"$LAB/out.toml"
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml"
# a is 1,001 hosts: 10.9.4.1 to 10.9.7.250, and itself. What b calls their SAs differs; every tenth is nobody whom b serves.
manual_sa a b 7 alice.many bob
ip -n a route add local 10.9.4.0/22 dev lo && ip -n b route add 10.9.4.0/22 via 10.9.0.1 || fail "no addresses"
ip -n a xfrm policy add src 10.9.0.0/21 dst 10.9.0.2 proto udp dir out tmpl proto esp reqid 7 mode transport || fail "no policy"
sas() { # sas HOST: a batch for ip, with the same keys at both ends
  awk -v host="$1" 'BEGIN { for (i = 0; i < 1000; i++) {
    peer = "10.9." 4 + int(i / 250) "." i % 250 + 1
    for (way = 0; way < 2; way++) printf "xfrm state add src %s dst %s proto esp spi 0x%x reqid %d mode transport replay-window 32 aead rfc4106(gcm(aes)) 0x%064x%08x 128\n",
      way ? "10.9.0.2" : peer, way ? peer : "10.9.0.2", 65536 + 2 * i + way, host == "a" ? 7 : 1000 + i, i + 1, way } }'
}
for host in a b; do sas $host | ip -n $host -batch - || fail "no SAs at $host"; done
awk 'BEGIN { for (i = 0; i < 1000; i++) printf "[[sa]]\nreqid = %d\nremote = [\"10.9.%d.%d\"]\nid = \"p%d.%s\"\nlocal_id = \"bob\"\n",
  1000 + i, 4 + int(i / 250), i % 250 + 1, i, i % 10 == 9 ? "others" : "many" }' | on b tee -a /etc/latchkey/pad.toml >/dev/null
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080'
expect srv ok
entries() { on b ip xfrm policy list dir out | grep -c 'sport 8080'; }
expect_eq "an entry for each that is allowed, and for alice" "$(entries)" 901
tell srv udp-echo
bg a many "${python[@]}" "$programs/udp_many.py" peers 10.9.0.2 8080
check "all ask" retry 60 grep -q '^answered' "$LAB/many.log"
expect_eq "who is allowed is answered" "$(grep '^answered' "$LAB/many.log")" "answered 900 of 1000, none wrong"
check "the others came, as ESP" [ "$(on b ip -s xfrm state list src 10.9.4.10 dst 10.9.0.2 | grep -c ' 1(packets)')" = 1 ]

bg a flows "${python[@]}" "$programs/udp_many.py" flows 10.9.0.2 8080
check "all flows ask" retry 60 grep -q '^answered' "$LAB/flows.log"
expect_eq "all are answered" "$(grep '^answered' "$LAB/flows.log")" "answered 5000 of 5000, none wrong"
expect_eq "and there is no entry more" "$(entries)" 901

# The other way about: what one socket sends to 5,000 ports of alice's. Nobody has them: a says nothing about it.
on a iptables-legacy -A INPUT -p udp --dport 10000:14999 -m policy --dir in --pol ipsec -j DROP || fail "no rule"
latched b fan "$LAB/out.toml" 'udp-new 10.9.0.1' 'udp-fan 10.9.0.1 10000 5000 canary-fan'
expect fan ok
expect fan 'ok: 5000' 60
dropped() { [ "$(on a iptables-legacy -nvxL INPUT | awk '/dpts:10000:14999/ { print $1 }')" = 5000 ]; }
check "all came, as ESP" retry 5 dropped
expect_eq "nothing of it in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP" "$(packets wire 'udp and net 10.9.0.0/21')" 0
