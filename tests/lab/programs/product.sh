# shellcheck shell=bash
# What the scenarios of the product share. Source it first: . "${BASH_SOURCE%/*}/../programs/product.sh"
#
# A scenario starts brokers, writes policies, and lets programs/sock.py make socket calls, latched or
# in clear; `ask` and `want` drive such a program, `answer` waits for what it says next.
programs=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
python=(/usr/bin/python3 -I -S)
declare -A _answers=() _marks=()

# start_broker HOST: latchkeyd in the background; log in $LAB/broker-HOST.log.
start_broker() {
  unset "_marks[$1]"
  bg "$1" "broker-$1" latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$1.log" ||
    fail "the broker of $1 does not start: $(cat "$LAB/broker-$1.log")"
}

# stop_broker HOST: a clean stop, with status 0; after that the SPD is as `spd_save` found it.
stop_broker() {
  local pid
  pid=$(cat "$LAB/broker-$1.pid")
  kill -TERM "$pid"
  wait "$pid"
  expect_eq "the broker of $1 stops cleanly" $? 0
}

kill_broker() { # kill_broker HOST: kill -9
  local pid
  pid=$(cat "$LAB/broker-$1.pid")
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null
}

# spd HOST: the SPD without socket policies, and the SAD without counters, in a stable order of lines.
spd() {
  on "$1" ip -d xfrm policy | awk '/^src/ { if (e !~ /socket/) print e; e = "" } { e = e "|" $0 }
    END { if (e !~ /socket/) print e }' | sed 's/ index [0-9]*//' | sort
  on "$1" ip xfrm state | grep -v anti-replay
}

spd_save() { spd "$1" >"$LAB/spd-$1"; }

# spd_unchanged HOST: SPD and SAD are as at spd_save.
spd_unchanged() {
  spd "$1" >"$LAB/spd-$1.now"
  diff "$LAB/spd-$1" "$LAB/spd-$1.now" || fail "the SPD or SAD of $1 is not as before"
  echo "good: SPD and SAD of $1 are as before"
}

# policy_header FILE [DEFAULT [MIN-BITS]]: begins a policy; rule and peer lines follow.
policy_header() {
  printf 'latchkey = 1\napplication = "%s"\n[default]\naction = "%s"\n[protection.strong]\nencryption = ["aes-gcm-16"]\nmin_key_bits = %s\n' \
    "$(basename "$1" .toml)" "${2:-system}" "${3:-256}" >"$1"
}

_policy() { # _policy DIRECTION PORT-KEY FILE PORTS ID...
  local direction=$1 key=$2 file=$3 ports=$4 ids
  shift 4
  printf -v ids '"%s", ' "$@"
  policy_header "$file"
  printf '[peer.them]\nid = [%s]\n[[rule]]\nname = "%s"\ndirection = "%s"\nprotocol = "tcp"\n%s = [%s]\naction = "protect"\nprotection = "strong"\npeer = "them"\n' \
    "${ids%, }" "rule-$direction" "$direction" "$key" "$ports" >>"$file"
}

# policy_in FILE PORTS ID...: a server's: these peers alone, AES-GCM-256; PORTS as in TOML's list.
policy_in() { _policy in local_port "$@"; }
# policy_out FILE PORTS ID...: a client's.
policy_out() { _policy out remote_port "$@"; }

# pair_policies: $LAB/in.toml and $LAB/out.toml, alice at a and bob at b, ports 8080 to 8089.
pair_policies() {
  policy_in "$LAB/in.toml" '"8080-8089"' alice
  policy_out "$LAB/out.toml" '"8080-8089"' bob
}

# start_pair: alice's and bob's SAs under reqid 7, the pair's policies, brokers on a and b. The SPD as
# it was before the brokers is saved.
start_pair() {
  pair_policies
  manual_sa a b 7 alice bob
  spd_save a
  spd_save b
  start_broker a
  start_broker b
}

# stop_pair: both brokers stop, and SPD and SAD are as before.
stop_pair() {
  stop_broker a
  stop_broker b
  spd_unchanged a
  spd_unchanged b
}

# sock HOST NAME [COMMAND...]: sock.py in the background, in clear, driven by ask, tell and answer.
sock() {
  local host=$1 name=$2
  shift 2
  _answers[$name]=0
  rm -f "$LAB/$name.in" "$LAB/$name.log" # what another of that name said is no answer
  mkfifo "$LAB/$name.in"
  # shellcheck disable=SC2086
  bg "$host" "$name" ${_under:-} "${python[@]}" "$programs/sock.py" -i "$LAB/$name.in" "$@"
}

# latched HOST NAME POLICY [COMMAND...]: the same under `latchkey run`.
latched() {
  local host=$1 name=$2 _under="latchkey run -p $3 --"
  shift 3
  sock "$host" "$name" "$@"
}

# once HOST [COMMAND...]: sock.py in the foreground, in clear; prints the results.
once() {
  local host=$1
  shift
  on "$host" "${python[@]}" "$programs/sock.py" "$@"
}

# once_latched HOST POLICY [COMMAND...]
once_latched() {
  local host=$1 policy=$2
  shift 2
  on "$host" latchkey run -p "$policy" -- "${python[@]}" "$programs/sock.py" "$@"
}

tell() { # tell NAME COMMAND: without waiting
  printf '%s\n' "$2" >"$LAB/$1.in"
}

# answer NAME [SECONDS]: waits for the next result, which is in REPLY.
answer() {
  local name=$1 end=$((SECONDS + ${2:-25})) lines
  while :; do
    mapfile -t lines < <(grep -as '^= ' "$LAB/$name.log")
    [ ${#lines[@]} -le "${_answers[$name]}" ] || break
    [ $SECONDS -lt $end ] || fail "$name does not answer; its log: $(tail -n 5 "$LAB/$name.log")"
    sleep 0.05
  done
  REPLY=${lines[${_answers[$name]}]#= }
  _answers[$name]=$((_answers[$name] + 1))
}

# silent NAME: it has said nothing that was not asked for.
silent() {
  local count
  count=$(grep -ac '^= ' "$LAB/$1.log")
  expect_eq "$1 says nothing" "$count" "${_answers[$1]}"
}

ask() { # ask NAME COMMAND: the result is in REPLY
  tell "$1" "$2"
  answer "$1"
}

# want NAME COMMAND RESULT: asks, and the result must be this one.
want() {
  ask "$1" "$2"
  expect_eq "$1: $2" "${REPLY#*: }" "$3"
}

# expect NAME RESULT [SECONDS]: the next result, of a command that is under way.
expect() {
  answer "$1" "${3:-25}"
  expect_eq "$1: ${REPLY%%:*}" "${REPLY#*: }" "$2"
}

# serve HOST NAME POLICY ADDRESS PORT: a latched echo server.
serve() {
  latched "$1" "$2" "$3" "listen $4 $5" serve
  expect "$2" ok
  expect "$2" ok
}

# pair_connects PORT LISTEN-ADDRESS ADDRESS TEXT: srvPORT at b, cliPORT at a, both latched, and an echo.
pair_connects() {
  serve b "srv$1" "$LAB/in.toml" "$2" "$1"
  latched a "cli$1" "$LAB/out.toml" "connect $3 $1"
  expect "cli$1" ok
  want "cli$1" "echo $4" "$4"
}

# pair_listed PORT SUFFIX: `latchkey list` of both ends shows the connection of pair_connects; SUFFIX is
# 4 (10.9.0.*) or 6 (fd00::*).
pair_listed() {
  local net='10\.9\.0\.'
  [ "$2" = 4 ] || net=fd00::
  want_latches a 1 "ESTABLISHED [0-9]+ ${net}2 bob alice transport aes-gcm-16:256 -"
  want_latches b 1 "ESTABLISHED $1 ${net}1 alice bob transport aes-gcm-16:256 -"
  want_latches b 1 "LISTENER $1 - - - - - -"
}

# end NAME: ends a program of sock or bg.
end() {
  kill "$(cat "$LAB/$1.pid")"
  wait "$(cat "$LAB/$1.pid")" 2>/dev/null
  return 0
}

# impostor [ID [SUITE]]: SAs between a and b of somebody else (mallory), under reqid 9.
impostor() {
  manual_sa a b 9 "${1:-mallory}" bob "${2:-aes-gcm-16:256}"
}

# tls_certificate: $LAB/cert.pem, key and certificate of one who is nobody.
tls_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=nobody -days 2 \
    -keyout "$LAB/cert.pem" -out "$LAB/cert.crt" 2>/dev/null &&
    cat "$LAB/cert.crt" >>"$LAB/cert.pem" || fail "no certificate"
}

# latches HOST: one line a latch, as programs/latches.py says.
latches() {
  on "$1" latchkey list --json | "${python[@]}" "$programs/latches.py"
}

_shows() { # _shows HOST PATTERN COUNT
  [ "$(latches "$1" | grep -cE "^($2)\$")" = "$3" ]
}

# want_latches HOST COUNT PATTERN: so many latches match (an extended expression for the whole line).
want_latches() {
  retry 13 _shows "$1" "$3" "$2" || fail "$1 does not list $2 of \"$3\": $(latches "$1")"
  echo "good: $1 lists $2 of \"$3\""
}

# mark HOST: want_refusal and want_logged look at what its broker says from now on. It may be late: a
# word that it could still say of something earlier is waited for before.
mark() { _marks[$1]=$(wc -l <"$LAB/broker-$1.log"); }
_said() { # _said HOST OPTION PATTERN: since the mark
  tail -n +$((${_marks[$1]:-0} + 1)) "$LAB/broker-$1.log" | grep -q "$2" -e "$3"
}

# want_refusal HOST REASON: the broker's log holds the stable word.
want_refusal() {
  retry 5 _said "$1" -w "$2" ||
    fail "the broker of $1 does not say $2: $(tail -n 5 "$LAB/broker-$1.log")"
  echo "good: the broker of $1 says $2"
}

# want_logged HOST WHAT PATTERN: so says the broker's log, which is written after the answers.
want_logged() {
  retry 5 _said "$1" -E "$3" ||
    fail "$2: the broker of $1 does not say \"$3\": $(tail -n 5 "$LAB/broker-$1.log")"
  echo "good: $2"
}

# wire_protected CAPTURE X Y CANARY: nothing of it in clear, nothing but ESP between them, and some.
wire_protected() {
  expect_eq "no packet with $4 in clear" "$(clear_octets "$1" "$4")" 0
  expect_eq "nothing but ESP between $2 and $3" "$(non_esp "$1" "$2" "$3")" 0
  check "there was ESP between $2 and $3" [ "$(esp_packets "$1" "$2" "$3")" -gt 0 ]
}

# packets CAPTURE FILTER: how many match tcpdump's filter (addresses, not names).
packets() {
  clear_octets "$1" none >/dev/null # what was sent until now is in the file
  tcpdump -n -r "$LAB/$1.pcap" "$2" 2>/dev/null | wc -l
}

# clear_payload CAPTURE: TCP packets in clear, to or from a latched port, that carry octets.
clear_payload() {
  packets "$1" 'portrange 8080-8089 and
    ((ip proto 6 and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0) or
     (ip6 proto 6 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0))'
}

# control CAPTURE: the same programs in clear, between c and b: seen, else "not seen" means nothing.
control() {
  local text="control-$RANDOM"
  sock b "$text" 'listen :: 9999' serve
  expect "$text" ok
  expect "$text" ok
  expect_eq "c and b talk in clear" "$(once c 'connect 10.9.0.2 9999' "echo $text" | tail -n 1)" "= echo: $text"
  check "which is seen" [ "$(clear_octets "$1" "$text")" -ge 2 ]
  end "$text"
}

# refuses_clear HOST ADDRESS PORT: a clear client gets no connection.
refuses_clear() {
  expect_eq "a clear client of $1 at $2" "$(once "$1" 'timeout 1.5' "connect $2 $3" | tail -n 1)" "= connect: timeout"
}

# as HOST UID POLICY [COMMAND...]: once_latched by an ordinary user.
as() {
  local host=$1 uid=$2 policy=$3
  shift 3
  on "$host" setpriv --reuid="$uid" --regid="$uid" --clear-groups \
    latchkey run -p "$policy" -- "${python[@]}" "$programs/sock.py" "$@"
}

# spd_port HOST "LOCAL REMOTE" PORT SIDE ACTION...: the SPD entries of HOST for TCP between the two and
# the server's PORT; SIDE says who serves: `theirs` or `ours`. ACTION:
# `block`, or `esp REQID`, `ah REQID`.
spd_port() {
  local host=$1 port=$3 side=$4 action=$5 reqid=${6:-} local remote out in entry=()
  read -r local remote <<<"$2"
  out="dport $port" in="sport $port"
  [ "$side" = theirs ] || { out="sport $port" in="dport $port"; }
  if [ "$action" = block ]; then
    entry=(action block)
  else
    entry=(tmpl proto "$action" reqid "$reqid" mode transport)
  fi
  # shellcheck disable=SC2086
  on "$host" ip xfrm policy add src "$local" dst "$remote" proto tcp $out dir out "${entry[@]}" &&
    on "$host" ip xfrm policy add src "$remote" dst "$local" proto tcp $in dir in "${entry[@]}" ||
    fail "no SPD entry for port $port at $host"
}
