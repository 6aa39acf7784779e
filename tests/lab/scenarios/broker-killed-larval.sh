# kill -9 at each kind of step of a connection that waits for its keys (LARVAL, a key exchange by charon): the next start leaves no entry, no latch and no hold on packets behind, and nothing went in clear.
set -u
# shellcheck source=../programs/killed.sh
. "$(dirname "$0")/../programs/killed.sh"

killed_host=a
shown='^BROKEN .* suspect-gap$'
charon_b() { kill "-$1" "$(cat "$LAB/charon-b.pid")"; }
larval() { [ "$(ip -n a xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" -gt 0 ] || over cli || broker_gone; }
work() {
  ike_down a a-b
  charon_b STOP
  latched a cli "$LAB/out.toml" 'timeout 8' 'nconnect 10.9.0.2 8080' 'echo canary-step' ended
  retry 15 larval || fail "it does not wait for keys: $(cat "$LAB/cli.log" "$LAB/broker-a.log")"
  charon_b CONT
  wait_over cli
}
good() {
  expect cli ok
  expect cli ok
  expect cli canary-step
}
end_work() { end_if cli; }
# SAs and entries of charon's own are none of ours; those of connections that closed linger.
clean() {
  as_idle '^[^|]\|reqid 65537 ' &&
    [ "$(ip -n a xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" = 0 ] &&
    [ "$(ip -n a xfrm state | grep -cE 'spi 0x00000000|reqid 42949[0-9]{5}')" = 0 ]
}

key_policies 'acquire_timeout = "60s"'
export IKE_CHARON='retransmit_tries = 6' # about 30 s
ike a b
start_broker a
start_broker b
spd_save a
serve b srv "$LAB/in.toml" :: 8080
capture wire
kill_steps 10 sendmsg,setsockopt,write,pwrite64,unlink
wire_protected wire a b canary
