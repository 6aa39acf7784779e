# The steps of README.md on two hosts of the lab: a is alice's, b bob's, c somebody else's.
# (tests/lab/exec examples/dns/story.sh)
set -u
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=canary-db.example

start_broker() { # start_broker HOST
  bg "$1" "broker-$1" latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$1.log" || fail "the broker of $1 does not start"
}
# dnsmasq_on HOST LOG CONFIGURATION [UNDER...]
dnsmasq_on() {
  local host=$1 log=$2 file=$3
  shift 3
  bg "$host" "$log" "$@" dnsmasq -k -C "$example/$file"
  retry 20 grep -qs 'started, version' "$LAB/$log.log" || fail "no dnsmasq: $(cat "$LAB/$log.log")"
}
# question HOST ARG...: what dig says, in one line; a word on stderr and a status when nobody answers.
question() {
  local host=$1
  shift
  on "$host" dig +short +tries=1 +time=3 "$@" "$name" A 2>&1 | tr '\n' ' '
}
# no_answer WHO HOST ARG...
no_answer() {
  local who=$1
  shift
  local got
  got=$(question "$@")
  case $got in *192.0.2.80*) fail "$who got an answer: $got" ;; esac
  echo "good: $who gets no answer"
}
heard() { grep -c "query\[A\] $name" "$LAB/server.log"; }
latched=(latchkey run -p)

manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
for host in a b c; do start_broker $host; done

# --- a control: unlatched, everybody is answered, in clear ---
capture clear
dnsmasq_on b server server.conf
expect_eq "anybody is answered" "$(question c @10.9.0.2)" '192.0.2.80 '
kill "$(cat "$LAB/server.pid")"
wait "$(cat "$LAB/server.pid")"
capture_stop clear
check "the name is seen" [ "$(clear_octets clear canary-db)" -gt 0 ]

# --- latched ---
capture wire
dnsmasq_on b server server.conf "${latched[@]}" "$example/server.toml" --
for address in 10.9.0.2 fd00::2; do
  expect_eq "dig is answered by $address" "$(on a "${latched[@]}" "$example/client.toml" -- \
    dig +short +tries=1 +time=3 @$address $name A)" 192.0.2.80
done
expect_eq "by TCP, too" "$(on a "${latched[@]}" "$example/client.toml" -- \
  dig +short +tcp +tries=1 +time=3 @10.9.0.2 $name A)" 192.0.2.80
dnsmasq_on a forwarder forwarder.conf "${latched[@]}" "$example/client.toml" --
expect_eq "a program of alice's, by the forwarder" "$(question a -p 5300 @127.0.0.1)" '192.0.2.80 '
expect_eq "and once more" "$(question a -p 5300 @127.0.0.1)" '192.0.2.80 '
expect_eq "no name in clear" "$(clear_octets wire canary-db)" 0
expect_eq "nothing but ESP" "$(non_esp wire a b)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 8 ]

# --- who is not alice ---
before=$(heard)
no_answer "carol in clear" c @10.9.0.2
no_answer "alice in clear" a @10.9.0.2
got=$(on c "${latched[@]}" "$example/client.toml" -- dig +short +tries=1 +time=3 @10.9.0.2 $name A 2>&1)
case $got in *192.0.2.80*) fail "carol got an answer" ;; esac
check "carol's questions came, as ESP" [ "$(esp_packets wire b c)" -gt 0 ]
expect_eq "the server heard none of them" "$(heard)" "$before"
