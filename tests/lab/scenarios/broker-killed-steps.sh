# kill -9 at every step of making latches (each message to the kernel, socket option and write of the journal): the next start leaves no entry and no latch behind, and nothing went in clear.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

traced() { grep -qs '^TracerPid:.*[1-9]' "/proc/$1/status"; }
# clean STEP: of a's SPD the same as with an idle broker, and no latch. A connection that closed under
# the new broker (steps of even number) leaves its entry for TIME_WAIT behind for a while.
clean() {
  local lingers='nothing' listed
  [ $(($1 % 2)) = 1 ] || lingers='mark 0x80000000.*reqid 7 '
  listed=$(latches a 2>/dev/null) && [ -z "$listed" ] && spd a | grep -v "$lingers" >"$LAB/spd-a.now" && cmp -s "$LAB/spd-a" "$LAB/spd-a.now"
}

manual_sa a b 7 alice bob
pair_policies
# What the program does: a listener in two families, and a connection.
cat "$LAB/out.toml" >"$LAB/both.toml"
sed -n '/^\[\[rule/,$p' "$LAB/in.toml" | sed 's/"them"/"client"/' >>"$LAB/both.toml"
printf '[peer.client]\nid = ["bob"]\n' >>"$LAB/both.toml"
start_broker b
serve b srv "$LAB/in.toml" :: 8080
capture wire
start_broker a
spd_save a
killed=0
for call in sendmsg setsockopt write; do
  for ((step = 1; ; ++step)); do
    [ $step -le 60 ] || fail "$call: no end of steps"
    pid=$(cat "$LAB/broker-a.pid")
    bg a "strace" strace -qq -f -p "$pid" -o "$LAB/steps" -e "trace=$call" -e "inject=$call:signal=KILL:when=$step"
    retry 10 traced "$pid" || fail "$call $step: strace does not attach: $(cat "$LAB/strace.log" "$LAB/broker-a.log")"
    latched a cli "$LAB/both.toml" 'listen :: 8081' 'connect 10.9.0.2 8080' 'echo canary-step' ended
    # A program that the launcher never started says nothing; one that was refused has an errno.
    over() { grep -qs '^= ended' "$LAB/cli.log" || ! kill -0 "$(cat "$LAB/cli.pid")" 2>/dev/null; }
    retry 20 over || fail "$call $step: the program hangs: $(cat "$LAB/cli.log")"
    if ! grep -q '+++ killed by SIGKILL' "$LAB/steps"; then
      # Beyond the last: all went well.
      end strace
      expect cli ok
      expect cli ok
      expect cli canary-step
      end cli
      want_latches a 0 '.*'
      break
    fi
    killed=$((killed + 1))
    wait "$pid" "$(cat "$LAB/strace.pid")" 2>/dev/null
    # The program goes before the next broker comes, or after.
    [ $((step % 2)) = 0 ] || end cli 2>/dev/null
    start_broker a
    [ $((step % 2)) = 1 ] || end cli 2>/dev/null
    retry 15 clean $step || fail "$call $step: left behind: $(latches a) $(diff "$LAB/spd-a" "$LAB/spd-a.now"); $(cat "$LAB/broker-a.log")"
  done
  echo "good: $call: killed at each of $((step - 1)) steps, nothing is left"
done
check "there were steps" [ $killed -ge 20 ]
wire_protected wire a b canary
control wire
stop_broker a
expect_eq "entries left in the SPD of a" "$(on a ip xfrm policy | grep -c '^src')" 0
stop_broker b
