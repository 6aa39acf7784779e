# Where a held UDP socket's datagrams leave: from another address of its own, by another route, under SAs that run out while the program sends.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
sed '/^remote_port/d' "$LAB/out.toml" >"$LAB/all.toml"
manual_sa a b 7 alice bob
start_broker a
start_broker b
capture wire

# Another address of ours, by IP_PKTINFO and by the route.
second_sas() { # second_sas ADD-OR-DELETE: between 10.9.0.1 and 10.9.0.22, alice's and bob's
  local host line
  for line in '10.9.0.1 10.9.0.22 0x2201' '10.9.0.22 10.9.0.1 0x2202'; do
    for host in a b; do
      # shellcheck disable=SC2086
      set -- "$1" $line
      if [ "$1" = add ]; then
        ip -n $host xfrm state add src "$2" dst "$3" proto esp spi "$4" reqid 7 mode transport replay-window 32 \
          aead 'rfc4106(gcm(aes))' "0x$(printf %064x%08d 1 "${4#0x}")" 128 || fail "no SA at $host"
      else
        ip -n $host xfrm state delete src "$2" dst "$3" proto esp spi "$4" || fail "it stays at $host"
      fi
    done
  done
}
latched b multi "$LAB/in.toml" 'udp-bind 0.0.0.0 8081' 'timeout 3'
expect multi ok
expect multi ok
latched a cli "$LAB/all.toml" 'udp-new 10.9.0.2' 'timeout 3'
expect cli ok
expect cli ok
ip -n b address add 10.9.0.22/24 dev eth0 && printf '[[sa]]\nreqid = 7\nremote = ["10.9.0.22"]\nid = "bob"\nlocal_id = "alice"\nauth = "manual"\n' |
  on a tee -a /etc/latchkey/pad.toml >/dev/null || fail "no second address"
# (Who has no such port would say so in clear, and quote what came.)
sock a sink 'udp-bind 0.0.0.0 9999'
expect sink ok
asks() { want cli "sendto 10.9.0.2 8081 $1" ok; }
elsewhere() { packets wire 'host 10.9.0.22 and not arp'; }
asks canary-pktinfo
ask multi 'udp-answer-from 10.9.0.22'
check "it may not leave from there without SAs: $REPLY" [ "${REPLY#*: }" != canary-pktinfo ]
expect_eq "and does not" "$(elsewhere)" 0
second_sas add
answered() {
  asks canary-second
  ask multi 'udp-answer-from 10.9.0.22'
  [ "${REPLY#*: }" = canary-second ]
}
check "it leaves from there when there are" retry 10 answered
check "as ESP" [ "$(packets wire 'src host 10.9.0.22 and ip proto 50')" -ge 1 ]
# What the kernel chooses by itself: by one route, then another, then one from where there are no SAs any more.
route() { ip -n b route replace 10.9.0.1/32 dev eth0 src "$1" || fail "no route"; }
sends() { ask multi "sendto 10.9.0.1 9999 $1"; }
sends canary-route
expect_eq "by its first address" "${REPLY#*: }" ok
before=$(packets wire 'src host 10.9.0.22 and ip proto 50')
route 10.9.0.22
sends canary-route
expect_eq "by its second" "${REPLY#*: }" ok
expect_eq "as ESP" "$(packets wire 'src host 10.9.0.22 and ip proto 50')" $((before + 1))
second_sas delete
sends canary-route
check "not without SAs: $REPLY" [ "${REPLY#*: }" != ok ]
route 10.9.0.2
sends canary-route
expect_eq "and by the first again" "${REPLY#*: }" ok
expect_eq "nothing but ESP from the second" "$(packets wire 'host 10.9.0.22 and not arp and not ip proto 50')" 0

# SAs that run out while the program sends.
sa_delete a b 7
manual_sa a b 7 alice bob
limited() { # what a sends may be 60 packets
  local line
  line=$(ip -n a xfrm state list src 10.9.0.1 dst 10.9.0.2 | sed -n 's/.*aead /aead /p')
  spi=$(awk '$1 == "10.9.0.1" && $2 == "10.9.0.2" { spi = $3 } END { print spi }' "$LAB/sa.7")
  # shellcheck disable=SC2086
  ip -n a xfrm state update src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 7 mode transport replay-window 32 $line limit packet-hard 60 ||
    fail "no limit"
}
keyed() { ask cli 'sendto 10.9.0.2 8081 canary-keyed' && [ "${REPLY#*: }" = ok ]; }
check "new SAs" retry 10 keyed
limited
want cli 'udp-until-refused 10.9.0.2 8081 canary-stream' ENOKEY
under() { packets wire "ip proto 50 and ip[20:4] = $spi"; }
expect_eq "so many left under it, and no more" "$(under)" 60
new_keys() {
  manual_sa a b 7 alice bob
  check "and sends on with new ones" retry 10 keyed
}
sa_delete a b 7 2>/dev/null
new_keys
# Where some are still on their way out, too: a call that would wait for room is not told that there is none.
latched a con "$LAB/out.toml" 'udp 10.9.0.2 8081 9101'
expect con ok
tc -n a qdisc add dev eth0 root tbf rate 8kbit burst 2000 limit 1000000 || fail "no slow link"
for _ in {1..20}; do want con "send canary-slow$(printf %01000d 0)" ok; done
sa_delete a b 7
want con 'send canary-slow' ENOKEY
check "some are" [ "$(tc -n a -s qdisc show dev eth0 | awk '/backlog/ { print $2 + 0 }')" -gt 0 ]
tc -n a qdisc del dev eth0 root || fail "no fast link"
new_keys
ask cli 'udp-stream 10.9.0.2 8081 200 canary-stream'
expect_eq "all of them" "${REPLY#*: }" "ok: 200"
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP between a and b" "$(packets wire 'host 10.9.0.1 and host 10.9.0.2 and udp')" 0
