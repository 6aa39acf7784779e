# The steps of README.md on hosts of the lab: a is alice's, b bob's, c somebody else's.
# (tests/lab/exec examples/syslog/story.sh)
set -u
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

start_broker() { # start_broker HOST
  bg "$1" "broker-$1" latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$1.log" || fail "the broker of $1 does not start"
}
# rsyslog HOST NAME CONFIGURATION READY [UNDER...]: READY is in the output of ss -aln when it is.
rsyslog() {
  local host=$1 name=$2 file=$3 ready=$4
  shift 4
  bg "$host" "$name" "$@" rsyslogd -n -iNONE -f "$example/$file"
  retry 20 eval "on $host ss -Haln | grep -q '$ready'" || fail "no rsyslogd: $(cat "$LAB/$name.log")"
}
has() { on b grep -qxF -e "$1" /run/messages 2>/dev/null; }
# collected ADDRESS TEXT
collected() {
  retry 10 has "$1 $2" || fail "no \"$1 $2\": $(on b cat /run/messages)"
  echo "good: \"$2\" is collected, from $1"
}
latched=(latchkey run -p)

manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
for host in a b c; do start_broker $host; done

# --- a control: unlatched, everybody is heard, in clear ---
capture clear
rsyslog b collector collector.conf ':514 '
on c logger -n 10.9.0.2 -P 514 -d canary-clear
retry 10 on b grep -qs canary-clear /run/messages || fail "nobody is heard: $(cat "$LAB/collector.log")"
echo "good: anybody is heard"
kill "$(cat "$LAB/collector.pid")"
wait "$(cat "$LAB/collector.pid")"
capture_stop clear
check "the line is seen" [ "$(clear_octets clear canary-clear)" -gt 0 ]

# --- latched ---
capture wire
rsyslog b collector collector.conf ':514 ' "${latched[@]}" "$example/server.toml" --
rsyslog a sender sender.conf /run/syslog.socket "${latched[@]}" "$example/client.toml" --
for number in 1 2 3; do on a logger -u /run/syslog.socket "canary-forwarded-$number"; done
for number in 1 2 3; do collected 10.9.0.1 "canary-forwarded-$number"; done
for address in 10.9.0.2 fd00::2; do
  on a "${latched[@]}" "$example/client.toml" -- logger -n $address -P 514 -d "canary-direct-$address"
done
collected 10.9.0.1 canary-direct-10.9.0.2
collected fd00::1 canary-direct-fd00::2
expect_eq "no line in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP" "$(non_esp wire a b)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -ge 5 ]

# --- who is not alice ---
on c logger -n 10.9.0.2 -P 514 -d canary-nobody
on a logger -n 10.9.0.2 -P 514 -d canary-nobody
on c "${latched[@]}" "$example/client.toml" -- logger -n 10.9.0.2 -P 514 -d canary-nobody
check "carol's came, as ESP" [ "$(esp_packets wire b c)" -gt 0 ]
# What comes after it is there, so it would be.
on a logger -u /run/syslog.socket canary-last
collected 10.9.0.1 canary-last
check "and nothing of them is collected" eval '! on b grep -q canary-nobody /run/messages'
