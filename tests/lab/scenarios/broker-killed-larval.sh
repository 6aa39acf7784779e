# kill -9 at each kind of step of a connection that waits for its keys (LARVAL, a key exchange by charon): the next start leaves no entry, no latch, no SA that was only begun and no hold on packets behind, and nothing went in clear.
set -u
# shellcheck source=../programs/killed.sh
. "$(dirname "$0")/../programs/killed.sh"

killed_host=a
shown='^BROKEN .* suspect-gap$'
charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }
before() {
  ike_down a a-b
  charon_b STOP
  latched a cli "$LAB/out.toml" 'timeout 8'
  expect cli ok
}
# Its SYN waits: the kernel has begun an SA for it.
waits() { ip -n a xfrm state | grep -qE 'spi 0x00000000 reqid 42949[0-9]{5}'; }
larval() { waits || over cli || broker_gone; }
work() {
  tell cli $'nconnect 10.9.0.2 8080\necho canary-step\nended'
  retry 15 larval || fail "it does not wait for keys: $(cat "$LAB/cli.log" "$LAB/broker-a.log")"
  charon_b CONT
  wait_over cli
}
good() {
  expect cli ok
  expect cli canary-step
}
end_work() { end_if cli; }
# Those that change something outside the broker and the program's socket, each at what it first does
# while the connection waits; the hold on packets and the latch's line also at what ends the waiting.
choose() { awk '/pwrite64|unlink|"latch/ || (/(NEW|UPD)POLICY|ALLOCSPI|DELSA|guard-end/ && !seen[$NF]++)'; }
# SAs and entries of charon's own are none of ours; where a connection closed, its entry lingers. An SA
# that the kernel began for want of one under an entry of ours bears its mark, and has no keys.
clean() {
  local charons='priority [1-9]'
  ! grep -q 'ESTABLISHED -> CLOSED' "$LAB/broker-a.log" || charons=''
  as_idle "^[^|]\|$charons.*reqid 65537 " && ! ip -n a xfrm state | grep -A1 -E 'spi 0x00000000|mark 0x80000000' >"$LAB/unclean"
}

key_policies 'acquire_timeout = "60s"'
export IKE_CHARON='retransmit_tries = 6' # about 30 s
ike a b
# What the kernel began stays until somebody drops it.
echo 3600 | on a tee /proc/sys/net/core/xfrm_acq_expires >/dev/null
start_broker a
start_broker b
spd_save a
serve b srv "$LAB/in.toml" :: 8080
capture wire
# Between two steps, and surely before there are keys.
before
tell cli 'nconnect 10.9.0.2 8080'
retry 15 waits || fail "it does not wait for keys: $(cat "$LAB/cli.log" "$LAB/broker-a.log")"
kill_broker a
end cli
charon_b CONT
start_broker a
retry 30 clean || fail "killed while it waits: left behind: $(cat "$LAB/unclean")"
kill_steps 9 sendmsg,write,pwrite64,unlink
wire_protected wire a b canary
