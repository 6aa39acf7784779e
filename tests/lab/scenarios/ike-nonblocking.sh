# A non-blocking connect to a peer without keys: the call is back at once, one wake-up tells what came of it, the SYN leaves as soon as the SA is there, and nothing is left behind.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

clean() { # clean HOST: no entry and no SA of a waiting connect, and the kernel drops again what has no SA
  [ "$(ip -n "$1" xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" = 0 ] &&
    [ "$(ip -n "$1" xfrm state | grep -cE 'spi 0x00000000|reqid 42949[0-9]{5}')" = 0 ] &&
    [ "$(on "$1" cat /proc/sys/net/core/xfrm_larval_drop)" = 1 ]
}
want_clean() {
  retry 15 clean a || fail "left behind: $(ip -n a xfrm policy) $(ip -n a xfrm state) $(on a cat /proc/sys/net/core/xfrm_larval_drop)"
  echo "good: nothing of it is left"
}
holds() { [ "$(ip -n a xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" -gt 0 ]; }
charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }
keyless() { ike_down a a-b || fail "no SA to close"; }
# econnect NAME ADDRESS WHAT: its result must begin so, with one wake-up; sets back and took, in ms.
econnect() {
  answer "$1" 60
  local what wakes
  read -r what wakes back took <<<"${REPLY#*: }"
  expect_eq "$1: what came of it, after how many wake-ups" "$what $wakes" "$2 1"
  echo "good: connect was back after $back ms, it was over after $took ms"
  [ "$back" -lt 1000 ] || fail "connect kept the program for $back ms"
}
sa_ms() { # when a's kernel had got its last SA to b
  date -d "$(grep -E '\] (Updated )?src 10\.9\.0\.1 dst 10\.9\.0\.2' "$LAB/monitor.log" | tail -n 1 | sed 's/^\[\(.*\)\].*/\1/')" +%s%3N
}

policy_in "$LAB/in.toml" '"8080-8089"' a.lab
policy_out "$LAB/short.toml" '"8080-8089"' b.lab c.lab
sed 's/^\[\[rule\]\]/&\nacquire_timeout = "60s"/' "$LAB/short.toml" >"$LAB/out.toml"
export IKE_CHARON='retransmit_tries = 6' # about 30 s
start_key_pair
bg a monitor ip -ts xfrm monitor SA
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'timeout 60'
expect cli ok

# As quick as the exchange is, in both families.
for address in 10.9.0.2 fd00::2; do
  tell cli "econnect $address 8080"
  econnect cli ok
  want cli 'echo canary-1' canary-1
  want cli close ok
done
# And with the SA there.
tell cli 'econnect 10.9.0.2 8080'
econnect cli ok
want cli close ok

# The peer's charon sleeps, far beyond the inline budget.
for round in 1 2 3; do
  keyless
  charon_b STOP
  tell cli 'econnect 10.9.0.2 8080'
  retry 10 holds || fail "no entry holds the SYN back"
  expect_eq "meanwhile what has no SA is kept" "$(on a cat /proc/sys/net/core/xfrm_larval_drop)" 0
  sleep 0.7
  silent cli
  charon_b CONT
  econnect cli ok
  ask cli ended
  late=$((${REPLY#*: } - $(sa_ms)))
  echo "good: writable $late ms after the SA, round $round"
  [ $late -lt 400 ] || fail "the SYN left late: $(cat "$LAB/monitor.log")"
  want cli 'echo canary-2' canary-2
  want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
  want_clean
  want cli close ok
done

# Nobody answers.
latched a none "$LAB/short.toml" 'econnect 10.9.0.3 8080'
econnect none ETIMEDOUT
want_refusal a acquire-timeout
want_clean

# The program does not wait for it: it closes the socket, or is killed.
keyless
charon_b STOP
want cli 'begin 10.9.0.2 8080' EINPROGRESS
holds || fail "no entry holds the SYN back"
want cli close ok
want_clean
latched a gone "$LAB/out.toml" 'begin 10.9.0.2 8080'
expect gone EINPROGRESS
holds || fail "no entry holds the SYN back"
kill -KILL "$(cat "$LAB/gone.pid")"
want_clean
charon_b CONT

# Somebody else answers.
IKE_ID=mallory ike b
ike_down a a-b
charon_b STOP
tell cli 'econnect 10.9.0.2 8080'
retry 10 holds || fail "no entry holds the SYN back"
charon_b CONT
econnect cli EKEYREJECTED
want_clean
want_latches a 0 '(LARVAL|ESTABLISHED) .*'

wire_protected wire a b canary
expect_eq "nor anything to c" "$(packets wire 'tcp and host 10.9.0.3')" 0
control wire
