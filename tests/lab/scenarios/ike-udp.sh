# A UDP connect to a peer without keys: a blocking one waits; one that does not block is done at once, what it sends is held back until the SA is there, and when none comes the next calls say why.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

clean() { # clean HOST: no entry and no SA of what waits, and the kernel drops again what has no SA
  [ "$(ip -n "$1" xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" = 0 ] &&
    [ "$(ip -n "$1" xfrm state | grep -cE 'spi 0x00000000|reqid 42949[0-9]{5}')" = 0 ] &&
    [ "$(on "$1" cat /proc/sys/net/core/xfrm_larval_drop)" = 1 ]
}
want_clean() {
  retry 15 clean a || fail "left behind: $(ip -n a xfrm policy) $(ip -n a xfrm state)"
  echo "good: nothing of it is left"
}
charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }

policy_in "$LAB/in.toml" '"8080-8089"' a.lab
policy_out "$LAB/short.toml" '"8080-8089"' b.lab c.lab
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/short.toml"
sed 's/^\[\[rule\]\]/&\nacquire_timeout = "60s"/' "$LAB/short.toml" >"$LAB/out.toml"
export IKE_CHARON='retransmit_tries = 6' # about 30 s
start_key_pair
capture wire
# Nobody at b latches: its SPD answers under the SA.
sock b srv 'udp-bind :: 8080'
expect srv ok
latched a cli "$LAB/out.toml" 'timeout 60' 'udp 10.9.0.2 8080'
expect cli ok
expect cli ok
want cli 'send canary-waited' ok
want srv recv canary-waited
# Connected at both ends, its channel has one binding; those of a socket that is not have none.
sed 's/"b.lab", "c.lab"/"a.lab"/' "$LAB/short.toml" >"$LAB/back.toml"
latched b back "$LAB/back.toml" 'udp 10.9.0.1 8088 8089'
expect back ok
latched a both "$LAB/out.toml" 'udp 10.9.0.2 8089 8088'
expect both ok
want both 'send canary-both' ok
want back recv canary-both
ask back binding
check "there is one: $REPLY" eval '[[ $REPLY =~ :\ ipsec-end-point-sha256\ [0-9a-f]{64}$ ]]'
want both binding "${REPLY#*: }"
latched a free "$LAB/out.toml" 'udp-new 10.9.0.2' 'sendto 10.9.0.2 8080 canary-free'
expect free ok
expect free ok
want srv recv canary-free
want free state 1
want free binding ENODATA
for name in back both free; do end $name; done
want cli close ok

for address in 10.9.0.2 fd00::2 ::ffff:10.9.0.2; do
  ike_down a a-b # IPv6 has an IKE_SA of its own, and the last round finds none
  charon_b STOP
  want cli "udp $address 8080 0 0" ok
  ask cli elapsed
  [ "${REPLY#*: }" -lt 1000 ] || fail "connect kept the program for ${REPLY#*: } ms"
  want cli 'send canary-held' ok
  want cli 'send canary-too' ok
  want_latches a 1 'LARVAL [0-9]+ .*'
  tell srv recv
  sleep 0.5
  silent srv
  charon_b CONT
  expect srv canary-held
  want srv recv canary-too
  want_latches a 1 'ESTABLISHED [0-9]+ .* b\.lab a\.lab transport aes-gcm-16:256 -'
  want cli 'send canary-later' ok
  want srv recv canary-later
  want_clean
  want cli close ok
done

# Nobody answers.
latched a none "$LAB/short.toml" 'udp 10.9.0.3 8080 0 0'
expect none ok
want none 'send canary-none' ok
want none recv ETIMEDOUT
want none 'send canary-none' ETIMEDOUT
want_refusal a acquire-timeout
want_clean
expect_eq "nor a blocking one" "$(once_latched a "$LAB/short.toml" 'udp 10.9.0.3 8080')" "= udp: ETIMEDOUT"

# Somebody else answers.
IKE_ID=mallory ike b
ike_down a a-b
expect_eq "the wrong peer" "$(once_latched a "$LAB/out.toml" 'udp 10.9.0.2 8080')" "= udp: EKEYREJECTED"
wire_protected wire a b canary
expect_eq "nor anything to c" "$(packets wire 'udp and port 8080 and host 10.9.0.3')" 0
control wire
