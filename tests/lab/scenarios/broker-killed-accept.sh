# kill -9 at each kind of step of an accept: the next start leaves no entry and no latch behind, and nothing went in clear.
set -u
# shellcheck source=../programs/killed.sh
. "$(dirname "$0")/../programs/killed.sh"

killed_host=b
lingers='mark 0x80000000.*reqid 7 '
before() {
  latched b srv "$LAB/in.toml" 'listen :: 8080'
  expect srv ok
}
work() {
  tell srv serve
  latched a cli "$LAB/out.toml" 'timeout 3' 'connect 10.9.0.2 8080' 'echo canary-step' ended
  wait_over cli
}
good() {
  expect cli ok
  expect cli ok
  expect cli canary-step
}
end_work() {
  end_if cli
  end_if srv
}
clean() { as_idle "$lingers"; }

pair_policies
manual_sa a b 7 alice bob
start_broker a
start_broker b
spd_save b
capture wire
kill_steps 6 sendmsg,setsockopt,write,bpf
wire_protected wire a b canary
