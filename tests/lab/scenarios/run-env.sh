# latchkey run: status, signals, input, arguments, environment and folder pass; CAP_NET_ADMIN and CAP_NET_RAW do not.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
start_broker a
run() { on a latchkey run -p "$LAB/out.toml" -- "$@"; }
run sh -c 'exit 42'
expect_eq "the exit status" $? 42
# shellcheck disable=SC2016
run sh -c 'kill -TERM $$'
expect_eq "death by a signal" $? 143
expect_eq "standard input" "$(echo input | run cat)" input
expect_eq "arguments" "$(run printf '<%s>' -p -- 'a b' '' '*')" '<-p><--><a b><><*>'
cd /usr/share || fail cd
expect_eq "the working directory" "$(run pwd)" /usr/share
expect_eq "the environment" "$(EXPORTED=yes on a latchkey run -p "$LAB/out.toml" -- printenv EXPORTED)" yes
# shellcheck disable=SC2016
bg a sleeper latchkey run -p "$LAB/out.toml" -- bash -c 'trap "echo caught; exit 7" TERM; echo ready; while :; do sleep 0.1; done'
retry 10 grep -q ready "$LAB/sleeper.log" || fail "the sleeper does not start"
kill -TERM "$(cat "$LAB/sleeper.pid")"
wait "$(cat "$LAB/sleeper.pid")"
expect_eq "a signal from outside" $? 7
check "the program had it" grep -q caught "$LAB/sleeper.log"

capabilities() { # capabilities OPTION...: CapEff inside
  on a latchkey run "$@" -p "$LAB/out.toml" -- "${python[@]}" "$programs/sock.py" capabilities | sed 's/.*: //'
}
inside=$(capabilities)
kept=$(capabilities --keep-net-caps)
expect_eq "CAP_NET_ADMIN (12) and CAP_NET_RAW (13) inside" $((0x$inside & 0x3000)) 0
check "others are kept ($inside)" [ $((0x$inside & 1)) = 1 ]
expect_eq "both with --keep-net-caps" $((0x$kept & 0x3000)) $((0x3000))
run ip xfrm state 2>"$LAB/said"
check "the program cannot read the SAD" grep -q 'not permitted' "$LAB/said"
run ip xfrm policy flush 2>"$LAB/said"
check "nor flush the SPD" grep -q 'not permitted' "$LAB/said"
# Nor does a program that it starts get them back.
run sh -c 'exec ip xfrm policy flush' 2>"$LAB/said"
check "nor does another that it becomes" grep -q 'not permitted' "$LAB/said"

# An ordinary user has room for 64 sessions, not for 64 programs one after another.
# shellcheck disable=SC2016
check "70 programs of one user" on a setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \
  'for i in $(seq 70); do latchkey run -p "$1" -- true 2>/dev/null || exit 1; done' sh "$LAB/out.toml"
