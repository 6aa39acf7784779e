#!/bin/bash
# inside.sh NAME...: runs cases/NAME.sh in the lab: bare, bypassed, latched. README.md says how.
#
# A case defines `needs` (programs), `serve` (starts what the client talks to, on host b) and `talk`
# (the client, on host a); what talk prints is compared between the three modes.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
modes=(bare bypassed latched)
next_port=8000
server_under=() client_under=()

policy() { # policy FILE DIRECTION PORT-KEY PEER: ports 8000 to 8999 are protected
  printf 'latchkey = 1\napplication = "%s"\n[peer.them]\nid = ["%s"]\n[[rule]]\ndirection = "%s"\nprotocol = "tcp"\n%s = ["8000-8999"]\naction = "protect"\npeer = "them"\n' \
    "$(basename "$1" .toml)" "$4" "$2" "$3" >"$1"
}

# a CMD...: a client's program, on host a, as the mode says; its output, and then its exit status.
a() {
  local status
  on a timeout -k 1 60 "${client_under[@]}" "$@" 2>&1
  status=$?
  echo "status $status"
}

# b NAME CMD...: a server's program, on host b, in the background; the case ends it with `stop`.
b() {
  local name=$1
  shift
  bg b "$name" "${server_under[@]}" "$@"
  servers+=("$name")
}

# stop NAME [SIGNAL]: ends it; prints its exit status, which is compared too.
stop() {
  local pid i
  pid=$(cat "$LAB/$1.pid")
  kill "-${2:-TERM}" "$pid" 2>/dev/null
  for ((i = 0; i < 100; i++)); do
    [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  echo "$1 ended with status $?"
}

one_mode() { # one_mode NAME MODE: writes $LAB/NAME.MODE, what the client said
  local mode=$2 servers=() name
  port=$next_port
  next_port=$((next_port + 10)) # of their own: none finds another's TIME_WAIT
  canary=canary-$1-$2
  folder=$LAB/$1-$2
  case $mode in
    bare) server_under=() client_under=() ;;
    bypassed) server_under=(latchkey run -p "$LAB/bypass.toml" --) client_under=("${server_under[@]}") ;;
    latched)
      server_under=(latchkey run -p "$LAB/in.toml" --)
      client_under=(latchkey run -p "$LAB/out.toml" --)
      ;;
  esac
  mkdir -p "$folder/www"
  chmod 755 "$folder" "$folder/www"
  {
    serve && talk
    for name in "${servers[@]}"; do
      [ -e "$LAB/$name.stopped" ] || stop "$name"
    done
  } >"$folder/said" 2>&1
  rm -f "$LAB"/*.stopped
  sed -e "s/$canary/CANARY/g" -e "s/\\b$port\\b/PORT/g" -e "s/\\b$((port + 1))\\b/PORT1/g" \
    -e "s|$folder|FOLDER|g" "$folder/said" >"$LAB/$1.$mode"
}

# payloads PORT MODE: TCP packets in clear with octets in them, of the mode's ten ports (0: bare, 2: latched).
payloads() {
  local first=$(($1 + 10 * $2))
  tcpdump -n -r "$LAB/wire.pcap" "portrange $first-$((first + 9)) and
    ((ip proto 6 and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0) or
     (ip6 proto 6 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0))" 2>/dev/null | wc -l
}

verdict() { # verdict NAME: prints ok or FAIL
  local name=$1 mode seen
  if ! grep -q CANARY "$LAB/$name.bare"; then
    echo "FAIL $name: does not work bare"
    tail -n 15 "$LAB/$name.bare" "$LAB"/srv*.log | sed 's/^/  | /'
    return
  fi
  for mode in bypassed latched; do
    if ! diff "$LAB/$name.bare" "$LAB/$name.$mode" >"$LAB/diff"; then
      echo "FAIL $name: differs when $mode (<: bare)"
      head -n 30 "$LAB/diff" | sed 's/^/  | /'
      tail -n 4 "$LAB"/srv*.log "$LAB"/broker-?.log | sed 's/^/  | /'
      return
    fi
  done
  seen=$(($(clear_octets wire "canary-$name-latched") + $(payloads "$first_port" 2)))
  if [ "$seen" != 0 ]; then
    echo "FAIL $name: latched, $seen packets of it were in clear"
    return
  fi
  if [ "$(payloads "$first_port" 0)" = 0 ]; then
    echo "FAIL $name: not even bare is anything of it seen on the wire"
    return
  fi
  echo "ok $name"
}

one_program() { # in a subshell: cases know nothing of each other
  local name=$1 program mode first_port=$next_port
  # shellcheck source=/dev/null
  . "$here/cases/$name.sh"
  for program in $needs; do
    if ! command -v "$program" >/dev/null; then
      echo "FAIL $name: $program is not installed"
      return
    fi
  done
  if declare -F alone >/dev/null; then # a case that is no client and server
    alone
    return
  fi
  for mode in "${modes[@]}"; do one_mode "$name" "$mode"; done
  verdict "$name"
}

policy "$LAB/in.toml" in local_port alice
policy "$LAB/out.toml" out remote_port bob
# With a rule about others each call is decided: where all is bypassed nobody is asked.
printf 'latchkey = 1\napplication = "bypass"\n[peer.them]\nid = ["bob"]\n[[rule]]\nremote = ["%s", "%s"]\naction = "protect"\npeer = "them"\n[[rule]]\naction = "bypass"\n' \
  192.0.2.0/24 2001:db8::/32 >"$LAB/bypass.toml"
chmod 755 "$LAB"
manual_sa a b 7 alice bob
# Port 8999, where nobody listens, answers under the SA: the kernel's own refusals go by the SPD alone.
for pair in '10.9.0.2 dst 10.9.0.1' 'fd00::2 dst fd00::1'; do
  # shellcheck disable=SC2086
  ip -n b xfrm policy add src $pair proto tcp sport 8999 dir out tmpl proto esp reqid 7 mode transport || fail "no SPD entry for port 8999"
done
for host in a b; do
  bg $host broker-$host latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$host.log" ||
    fail "the broker of $host does not start: $(cat "$LAB/broker-$host.log")"
done
capture wire
for name in "$@"; do
  (one_program "$name")
  next_port=$((next_port + 30))
done
check 'the capture is whole' capture_stop wire
exit 0
