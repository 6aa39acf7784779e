# The system's policy comes to discard what a program latched: both its connections break (conflict-spd), the one that suspends is back when the policy is; and latchkey watch tells their whole lives, in both its forms.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

# user NAME POLICY [COMMAND...]: `latched` at a for who has no grants; root could override the system.
user() {
  local _under="setpriv --reuid=1000 --regid=1000 --clear-groups latchkey run -p $2 --" name=$1
  shift 2
  sock a "$name" "$@"
}
# lives LATCH: its events, "EVENT FROM TO REASON", a line each.
lives() {
  "${python[@]}" -c '
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["id"] == int(sys.argv[2]):
        print(event["event"], event["from"], event["to"], event["reason"])' "$LAB/watching.log" "$1"
}
lived() { lives "$1" | diff - <(printf '%s\n' "${@:2}") >"$LAB/lives"; }
want_life() { # want_life LATCH EVENT...: these and no others
  retry 10 lived "$@" || fail "latch $1 lived otherwise: $(cat "$LAB/lives")"
  echo "good: watch tells the life of latch $1"
}

start_pair
capture wire
sed 's/^\[\[rule\]\]/&\non_break = "suspend"/' "$LAB/out.toml" >"$LAB/suspend.toml"
bg a watching latchkey watch --json
bg a watched latchkey watch
serve b srv "$LAB/in.toml" :: 8080
# Both watch once they have told of somebody.
told() { once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' >/dev/null && [ -s "$LAB/watching.log" ] && [ -s "$LAB/watched.log" ]; }
retry 15 told || fail "watch tells nothing: $(cat "$LAB/watching.log" "$LAB/watched.log")"
want_latches a 0 '.*'
user cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-cli'
expect cli ok
expect cli canary-cli
first=$(field a ESTABLISHED id) second=$((first + 1))
user sus "$LAB/suspend.toml" 'connect 10.9.0.2 8080' 'echo canary-sus'
expect sus ok
expect sus canary-sus
tell cli recv
spd_port a "10.9.0.1 10.9.0.2" 8080 theirs block
expect cli ECONNRESET
want_refusal a conflict-spd
want_latches a 2 'BROKEN [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 conflict-spd'
tell sus 'echo canary-again'
sleep 1.5
silent sus
# The conflict gone, it goes on.
ip -n a xfrm policy delete src 10.9.0.1 dst 10.9.0.2 proto tcp dport 8080 dir out
ip -n a xfrm policy delete src 10.9.0.2 dst 10.9.0.1 proto tcp sport 8080 dir in
expect sus canary-again
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
end sus
want_life "$first" 'state None ESTABLISHED None' 'state ESTABLISHED BROKEN conflict-spd'
want_life "$second" 'state None ESTABLISHED None' 'state ESTABLISHED BROKEN conflict-spd' 'state BROKEN ESTABLISHED None' 'state ESTABLISHED CLOSED closed'
for words in "latch $first new -> ESTABLISHED: .*tcp .* -> 10\.9\.0\.2:8080 peer bob" "latch $first ESTABLISHED -> BROKEN: conflict-spd" \
  "latch $second BROKEN -> ESTABLISHED" "latch $second ESTABLISHED -> CLOSED"; do
  retry 5 grep -q "$words" "$LAB/watched.log" || fail "watch does not say $words: $(cat "$LAB/watched.log")"
done
end cli
wire_protected wire a b canary
