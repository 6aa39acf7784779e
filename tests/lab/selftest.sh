#!/bin/bash
# Holds tests/lab to its word from the outside: results that cannot be faked, nothing left behind,
# the machine unchanged. Runs the guest on user-mode-linux, whatever the running kernel can do,
# because some of these cases crash it. Takes about two minutes.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
export LATCHKEY_LAB_NOBUILD=${LATCHKEY_LAB_NOBUILD:-1} LATCHKEY_LAB_KERNEL=uml
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp" "$work/scenarios" "$work/logs"
export LATCHKEY_LAB_SCENARIOS=$work/scenarios LATCHKEY_LAB_LOGS=$work/logs
echo "lab_run=$work/tmp/" >"$work/pattern"
bad=0

expect() { # expect WHAT GOT WANT
  if [ "$2" = "$3" ]; then
    echo "good: $1"
  else
    echo "BAD: $1: got \"$2\", want \"$3\""
    bad=$((bad + 1))
  fi
}

lab=$here/exec
export TMPDIR=$work/tmp # shows what is left in it

guests() { # guests: the processes of guests that were started with our temporary folder
  grep -alF -f "$work/pattern" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3
}

expect_clean() { # expect_clean WHEN
  local i
  for ((i = 0; i < 50; i++)); do
    [ -n "$(guests)" ] || break
    sleep 0.1
  done
  expect "no process is left $1" "$(guests)" ""
  expect "no file is left $1" "$(ls "$work/tmp")" ""
}

# --- the reader of captures ---
/usr/bin/python3 "$here/pcap_test.py" >"$work/out" 2>&1
expect "pcap_test.py" "$? $(grep -c '^FAIL' "$work/out")" "0 0"

# --- what a script gets, and what comes back ---
mkdir "$work/a b"
cat >"$work/a b/script.sh" <<'END'
printf '%s\0' "$0" "$@" "$PWD" "$CANARY" "$(id -u)"
echo to-stderr >&2
date +%s >&2
kill -TERM $$
END
awkward=$'quote\' "double" $dollar `tick` \\ *\n\xff\x01 '
(cd "$work/a b" && CANARY=$awkward "$lab" ./script.sh "$awkward" '' -x >"$work/out" 2>"$work/err")
expect "status of a script that died of TERM" $? 143
printf '%s\0' ./script.sh "$awkward" '' -x "$work/a b" "$awkward" 0 >"$work/want"
cmp "$work/out" "$work/want"
expect "name, arguments, folder, environment" $? 0
expect "standard error" "$(head -1 "$work/err")" to-stderr
now=$(date +%s) then=$(sed -n 2p "$work/err")
expect "the clock is the host's" "$((now - then >= -1 && now - then < 10))" 1
expect_clean "after a run"

echo 'head -c 3000000 /dev/urandom | tee >(sha256sum >&2); sleep 1; exit 3' >"$work/big.sh"
"$lab" "$work/big.sh" >"$work/out" 2>"$work/err"
expect "status 3" $? 3
expect "3 MB of any bytes arrive" "$(sha256sum <"$work/out")" "$(grep -a -- ' -$' "$work/err")"

shm=$(mktemp -d /dev/shm/latchkey-selftest.XXXXXX)
echo 'cat ./beside; pwd' >"$shm/script.sh"
echo neighbour >"$shm/beside"
expect "a script in /dev/shm" "$(cd "$shm" && "$lab" script.sh)" "neighbour"$'\n'"$shm"
rm -rf "$shm"
expect "a script from a pipe" "$("$lab" <(echo 'echo "$1"') word)" word
"$lab" "$work/no-such-script" 2>/dev/null
expect "a script that does not exist" $? 127

echo 'echo early; sleep 600' >"$work/slow.sh"
rm -f "$work/out"
"$lab" "$work/slow.sh" >"$work/out" 2>&1 &
pid=$!
for ((i = 0; i < 300; i++)); do
  [ ! -s "$work/out" ] || break
  sleep 0.1
done
expect "output comes while the script runs" "$(cat "$work/out")" early
kill -TERM $pid
wait $pid
expect "status after TERM" $? 143
expect_clean "after TERM"

"$lab" "$work/slow.sh" >/dev/null 2>&1 &
pid=$!
sleep 4
kill -KILL $pid
wait $pid 2>/dev/null
for ((i = 0; i < 50; i++)); do
  [ -n "$(guests)" ] || break
  sleep 0.1
done
expect "no process is left after KILL" "$(guests)" ""
rm -rf "$work"/tmp/*

# --- results that are no success ---
scenario() { # scenario NAME: from standard input
  cat >"$work/scenarios/$1.sh"
}
run_one() { # run_one NAME: sets status, line
  "$here/run" "$1" >"$work/out" 2>&1
  status=$?
  line=$(head -n 1 "$work/out")
}

scenario good <<<'echo fine'
run_one good
expect "a good scenario passes" "$status ${line%% (*}, $(tail -n 1 "$work/out")" "0 ok good, lab: 1 passed, 0 failed"

scenario crash <<'END'
run=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^lab_run=//p')
mkdir -p "$run/ctl"
echo "$(cat "$run/ctl/nonce" 2>/dev/null) 0" >"$run/ctl/result"
echo 'ok crash (1.0 s)'
echo 'lab: 1 passed, 0 failed'
sleep 1
echo c >/proc/sysrq-trigger
END
run_one crash
expect "a crash fails" "$status $line" "1 FAIL crash: the lab failed (125)"
expect "and is counted" "$(tail -n 1 "$work/out")" "lab: 0 passed, 1 failed"
expect "its fake lines do not count" "$(grep -c -e '^ok' -e '^lab: 1 passed' "$work/out")" 0
expect "the console is shown" "$(grep -c "lab: .*Kernel panic" "$work/out")" 1
expect_clean "after a crash"

scenario off <<<"perl -e 'syscall(169, 0xfee1dead, 672274793, 0x4321fedc, 0)'; sleep 5; exit 0"
run_one off
expect "a script that switches the machine off fails" "$status ${line%%:*}" "1 FAIL off"

scenario leave <<<'echo leaving; exit 77'
run_one leave
expect "exit 77 fails" "$status $line" "1 FAIL leave: exit 77: a case left out is a failure"
scenario word <<<'echo "lab-esp ... SKIPPED (no ESP)"; exit 0'
run_one word
expect "the word fails" "$status ${line%%:*}" "1 FAIL word"
scenario fake <<<'echo "ok fake (0.1 s)"; echo "lab: 1 passed, 0 failed"; exit 1'
run_one fake
expect "a fake pass line fails" "$status $line" "1 FAIL fake: exit 1"
run_one nothing
expect "an unknown name fails" "$status $line" "1 FAIL nothing: no such scenario (see --list)"

scenario hang <<<"trap '' TERM; echo hanging; while :; do sleep 1; done"
LATCHKEY_LAB_TIMEOUT=3 run_one hang
expect "a hang fails" "$status $line" "1 FAIL hang: over the time limit of 3 s"

# A guest that stops as a whole: the watch on this side ends it.
echo 'echo here; sleep 600' >"$work/slow.sh"
rm -f "$work/out"
LATCHKEY_LAB_TIMEOUT=6 "$lab" "$work/slow.sh" >"$work/out" 2>&1 &
pid=$!
for ((i = 0; i < 300; i++)); do
  ! grep -qs here "$work/out" || break
  sleep 0.1
done
# shellcheck disable=SC2046
kill -STOP $(guests)
wait $pid
expect "a frozen guest ends" $? 124
expect "with a word about it" "$(grep -c 'the guest hung' "$work/out")" 1
expect_clean "after a frozen guest"

# --- the machine is as before ---
print_state() {
  stat -c '%n %Y %Z %s' /etc/passwd /etc/hosts /etc/resolv.conf /etc /usr /usr/local/bin /root /var/lib /opt 2>&1
  ls -d /usr/share/doc /usr/share/doc/bash /etc/hostname 2>&1
  find / -xdev -name 'latchkey-lab-canary*' -newer "$work/scenarios" 2>/dev/null
  ls -d /tmp/latchkey-lab-canary* /dev/shm/latchkey-lab-canary* 2>/dev/null
}
print_state >"$work/before"
LATCHKEY_LAB_SCENARIOS=$here/scenarios run_one lab-host-protected
expect "lab-host-protected" "$status ${line%% (*}" "0 ok lab-host-protected"
print_state >"$work/after"
diff "$work/before" "$work/after"
expect "the host is as before" $? 0

echo "lab selftest: $bad bad"
[ $bad = 0 ]
