# shellcheck shell=bash
# What the scenarios share that kill a broker at each kind of step of making a latch; sources keys.sh.
# A step is a call by which the broker changes something outside itself. The scenario defines
#   work     begins what makes latches, and returns when it is over, well or badly
#   good     says that it went well, or fails
#   end_work ends whatever `work` has begun, whether it still runs or not
#   clean    true when host $killed_host is as with an idle broker
#   before   where it is defined: makes ready what the broker is not watched at
#   choose   where it is defined: lets through the steps to kill at, of lines "CALL NUMBER KIND"
#   $shown   latches that match are none left behind (broken ones are listed for half a minute)
# and calls kill_steps.
# shellcheck source=keys.sh
. "${BASH_SOURCE[0]%/*}/keys.sh"

_traced() { grep -qs '^TracerPid:.*[1-9]' "/proc/$1/status"; }
_untraced() { ! _traced "$1"; }
_killed() { grep -qs '+++ killed by SIGKILL' "$LAB/steps"; }
# Dead already, whether strace has come to say so or not. (Whoever is attached to is in state "t".)
_died() { _killed || ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
_traced_or_killed() { _traced "$1" || _died "$1"; }

# _trace OPTION...: strace on the broker, its words in $LAB/steps.
_trace() {
  local pid
  pid=$(cat "$LAB/broker-$killed_host.pid")
  ! declare -F before >/dev/null || before
  rm -f "$LAB/steps"
  bg "$killed_host" strace strace -qq -s 60 -p "$pid" -o "$LAB/steps" "$@"
  retry 60 _traced_or_killed "$pid" || fail "strace does not attach: $(cat "$LAB/strace.log" "$LAB/broker-$killed_host.log")"
}

# _kinds: of the calls in $LAB/steps, "CALL NUMBER KIND" for the first and the last of each kind. The
# kind is what it does: the message's type to the kernel, the option, what kind of line or file.
_kinds() {
  awk '
    { call = $0; sub(/\(.*/, "", call); if (call !~ /^[a-z0-9_]+$/) next; n = ++count[call]; kind = "" }
    call == "sendmsg" && /sa_family=AF_NETLINK/ { match($0, /(nlmsg_)?type=[^,]*/); kind = substr($0, RSTART, RLENGTH) }
    call == "sendmsg" && kind == "" { kind = "answer" }
    call == "setsockopt" { split($0, part, ", "); kind = part[2] " " part[3] }
    call == "write" { match($0, /"[^,]*/); kind = substr($0, RSTART, RLENGTH); if (kind ~ /"latchkeyd/) kind = "log" }
    call == "bpf" { split($0, part, /[(,]/); kind = part[2] }
    call == "connect" { if (/sa_family=AF_UNIX/) next; kind = call }
    kind ~ /_GET|_LOOKUP_|SOCK_DIAG|SO_PASSCRED/ { next } # it only looks
    { key = call " " kind; if (!(key in first)) { first[key] = n; order[++keys] = key } last[key] = n }
    END { for (i = 1; i <= keys; i++) { key = order[i]; split(key, part, " "); what = substr(key, length(part[1]) + 2)
      print part[1], first[key], what; if (last[key] != first[key]) print part[1], last[key], what } }' "$LAB/steps"
}

# kill_steps LEAST CALL,CALL...: kills the broker at the first and the last of each kind of step that
# `work` takes, at LEAST so many of them.
kill_steps() {
  local call number kind killed=0 pid steps
  _trace -e "trace=$2"
  work
  end strace
  good
  end_work
  retry 30 clean || fail "not clean without any kill: $(cat "$LAB/unclean")"
  steps=$(_kinds)
  ! declare -F choose >/dev/null || steps=$(choose <<<"$steps")
  [ -n "$steps" ] || fail "no steps: $(head -n 50 "$LAB/steps")"
  echo "$steps"
  while read -r call number kind; do
    pid=$(cat "$LAB/broker-$killed_host.pid")
    _trace -e "trace=$call" -e "inject=$call:signal=KILL:when=$number"
    # An idle broker looks for charon from time to time: such a step is none of the work's.
    if _died "$pid"; then
      end_if strace
      wait "$pid" 2>/dev/null
      end_work
      start_broker "$killed_host"
      continue
    fi
    work
    # Some steps come late: after this none is a kill any more.
    end_if strace
    if ! _killed; then
      # This time it took fewer.
      good
      end_work
      retry 30 clean || fail "$call $number: not clean without a kill: $(cat "$LAB/unclean")"
      continue
    fi
    killed=$((killed + 1))
    wait "$pid" 2>/dev/null
    # The program goes before the next broker comes, or after.
    [ $((killed % 2)) = 0 ] || end_work
    start_broker "$killed_host"
    [ $((killed % 2)) = 1 ] || end_work
    retry 30 clean || fail "$call $number ($kind): left behind: $(cat "$LAB/unclean" "$LAB/broker-$killed_host.log")"
  done <<<"$steps"
  [ $killed -ge "$1" ] || fail "killed at $killed steps only"
  echo "good: killed at $killed steps, nothing is left"
}

# as_idle PATTERN: no latch but those of $shown, and but for entries that match PATTERN (those of
# TIME_WAIT) the SPD is as spd_save found it. What is not so stands in $LAB/unclean.
as_idle() {
  {
    latches "$killed_host" | grep -v "${shown:-^$}"
    spd "$killed_host" | grep -v "$1" | diff "$LAB/spd-$killed_host" -
    [ "$(on "$killed_host" cat /proc/sys/net/core/xfrm_larval_drop)" = 1 ] || echo "larval_drop is 0"
  } >"$LAB/unclean" 2>&1
  [ ! -s "$LAB/unclean" ]
}

# over NAME: a program of `latched` has said "ended", or is no more.
over() { grep -qs '^= ended' "$LAB/$1.log" || ! kill -0 "$(cat "$LAB/$1.pid")" 2>/dev/null; }
# wait_over NAME: so it is, or the broker has been killed, and it goes on by itself for a moment.
wait_over() {
  _over_or_gone() { over "$1" || broker_gone; }
  retry 25 _over_or_gone "$1" || fail "$1 hangs: $(cat "$LAB/$1.log")"
  over "$1" || sleep 0.5
}
# broker_gone: killed, whether it was waited for or not.
broker_gone() {
  local state=Z
  read -r _ _ state _ 2>/dev/null <"/proc/$(cat "$LAB/broker-$killed_host.pid")/stat"
  [ "$state" = Z ]
}
# end_if NAME: ends it where it runs.
end_if() { end "$1" 2>/dev/null; }
