# kill -9 at each kind of step of latching UDP, with and without a connection, and of going in clear where a rule allows it: the next start leaves no entry and no latch behind, and what is protected never went in clear.
set -u
# shellcheck source=../programs/killed.sh
. "$(dirname "$0")/../programs/killed.sh"

killed_host=a
work() {
  latched a cli "$LAB/both.toml" 'timeout 3' 'udp 10.9.0.2 8080' 'send canary-connected' \
    'use held' 'udp-new 10.9.0.2' 'sendto 10.9.0.2 8080 canary-held' 'use clear' 'connect 10.9.0.3 9090' 'echo in-clear' ended
  wait_over cli
}
good() {
  local said
  for said in ok ok ok ok ok ok ok ok in-clear; do expect cli "$said"; done
}
end_work() { end_if cli; }
# Tags stay in the SAs, for as long as those live.
clean() { as_idle output-mark; }

pair_policies
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
cat "$LAB/out.toml" >"$LAB/both.toml"
printf '[[rule]]\nname = "perhaps"\ndirection = "out"\nprotocol = "tcp"\nremote_port = [9090]\naction = "protect-or-bypass"\nprotection = "strong"\npeer = "them"\n' >>"$LAB/both.toml"
manual_sa a b 7 alice bob
start_broker b
latched b srv "$LAB/in.toml" 'udp-bind :: 8080'
expect srv ok
sock c plain 'listen :: 9090' serve
wait_listen c 9090
capture wire
start_broker a
spd_save a
kill_steps 12 sendmsg,setsockopt,write,bpf,connect
wire_protected wire a b canary
