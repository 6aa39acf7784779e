# The fence stops what the shim is not in, static programs, as clients and as servers; also while no broker is there.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
mkdir "$LAB/web"
echo canary-fence >"$LAB/web/page"
bg c web env -C "$LAB/web" /usr/bin/python3 -m http.server --bind 0.0.0.0 8080
bg c free env -C "$LAB/web" /usr/bin/python3 -m http.server --bind 0.0.0.0 9999
wait_listen c 8080
wait_listen c 9999

static() { # static PORT: what a static program gets from c
  local port=$1
  on a latchkey run -p "$LAB/out.toml" -- timeout 5 busybox wget -q -O - "http://10.9.0.3:$port/page" 2>"$LAB/said"
}
expect_eq "nothing where a rule protects" "$(static 8080)" ""
check "EPERM" grep -q 'Operation not permitted' "$LAB/said"
expect_eq "nothing was sent" "$(packets wire 'host 10.9.0.3 and port 8080')" 0
expect_eq "what no rule speaks of" "$(static 9999)" canary-fence
check "it is on record" retry 5 grep -q 'refused: fenced -> 10.9.0.3:8080 (connect refused)' "$LAB/broker-a.log"
check "and why names it" grep -q 'refused fenced tcp - -> 10.9.0.3:8080 .*: connect refused' <(on a latchkey why)

on a latchkey run -p "$LAB/out.toml" -- busybox true 2>"$LAB/said"
expect_eq "a static program" $? 0
check "is said to be fenced alone" grep -q 'statically linked.*: fenced, not latched' "$LAB/said"
on a latchkey run --no-fence -p "$LAB/out.toml" -- busybox true 2>"$LAB/said"
expect_eq "not without a fence" $? 126
on a latchkey run --no-fence -p "$LAB/out.toml" -- sleep 60 2>"$LAB/said" &
unfenced=$!
check "it is said that there is none" retry 10 grep -q 'not fenced: --no-fence: what gets past the shim goes by the SPD' "$LAB/said"
check "by list too" grep -q 'not fenced: .*/sleep: --no-fence' <(on a latchkey list 2>&1)
kill "$unfenced"

# A server: nobody in clear.
bg b server latchkey run -p "$LAB/in.toml" -- busybox nc -l -p 8081
wait_listen b 8081
refuses_clear c 10.9.0.2 8081
end server

# One of which no rule says who may come is reached, also once the SPD has entries for others.
bg b open latchkey run -- env -C "$LAB/web" /usr/bin/python3 -m http.server --bind 0.0.0.0 8082
wait_listen b 8082
from_b() { on c busybox wget -q -O - http://10.9.0.2:8082/page; }
expect_eq "a server without rules" "$(from_b)" canary-fence
on b ip xfrm policy add dir in src 10.9.0.77 dst 10.9.0.2 tmpl proto esp reqid 77 mode transport
check "the broker has seen the entry" retry 5 grep -q 10.9.0.77 <(on b latchkey list --spd)
expect_eq "beside an entry for others" "$(from_b)" canary-fence
on b ip xfrm policy delete dir in src 10.9.0.77 dst 10.9.0.2
end open

# Killed, and back: the fence stands.
mkfifo "$LAB/go"
# shellcheck disable=SC2016
bg a waits latchkey run -p "$LAB/out.toml" -- busybox sh -c \
  'while read -r port; do busybox wget -q -O - "http://10.9.0.3:$port/page"; echo "got $?"; done <'"$LAB/go"
exec 9>"$LAB/go"
answers() { [ "$(grep -c '^got' "$LAB/waits.log")" = "$1" ]; }
got() { # got COUNT STATUS: so many answers, and the last is this
  retry 15 answers "$1" || fail "no answer $1: $(cat "$LAB/waits.log")"
  expect_eq "answer $1" "$(grep '^got' "$LAB/waits.log" | tail -n 1)" "got $2"
}
echo 8080 >&9
got 1 1
check "list names it" grep -q 'fenced, not latched: .*/busybox' <(on a latchkey list 2>&1)
kill_broker a
echo 8080 >&9
got 2 1
echo 9999 >&9
got 3 0
start_broker a 9>&-
echo 8080 >&9
got 4 1
check "and tells of it" retry 5 grep -q 'refused: fenced -> 10.9.0.3:8080' "$LAB/broker-a.log"
exec 9>&-
wait "$(cat "$LAB/waits.pid")"
expect_eq "nothing in clear to a port that a rule protects" "$(packets wire 'host 10.9.0.1 and tcp port 8080')" 0
expect_eq "unfenced it is seen" "$(on a busybox wget -q -O - http://10.9.0.3:8080/page)" canary-fence
check "on the wire" [ "$(packets wire 'host 10.9.0.1 and tcp port 8080')" -ge 3 ]
gone() { [ -z "$(on a sh -c 'ls -d /sys/fs/bpf/latchkey/fence-* 2>/dev/null')" ]; }
stop_pair
check "with the last program the fence goes" gone
