#!/bin/bash
# native.sh BIN N: measures in two network namespaces of the running kernel (run by `run`).
set -u
bin=$1 rounds=$2 name=${1##*/}
a=$name-a b=$name-b
pids=()
cleanup() {
  [ ${#pids[@]} = 0 ] || { kill "${pids[@]}" && wait "${pids[@]}"; } 2>/dev/null
  ip netns del "$a" 2>/dev/null
  ip netns del "$b" 2>/dev/null
}
trap cleanup EXIT
die() {
  echo "bench: $*" >&2
  exit 1
}
until_there() { # until_there CMD...
  local i
  for ((i = 0; i < 100; i++)); do
    ! "$@" || return 0
    sleep 0.1
  done
  return 1
}
ip netns add "$a" && ip netns add "$b" || die 'no network namespaces'
ip -n "$a" link add veth0 type veth peer name veth0 netns "$b"
for end in "$a 10.9.0.1" "$b 10.9.0.2"; do
  ip -n "${end% *}" link set lo up
  ip -n "${end% *}" link set veth0 up
  ip -n "${end% *}" addr add "${end#* }/24" dev veth0
done
ip -n "$b" addr add 10.9.0.3/24 dev veth0  # the same again, for turns.sh
# Whole networks are b's, for peers that nobody has connected to before.
for net in 10.9.1.0/24 10.9.2.0/24; do
  ip -n "$b" route add local "$net" dev lo
  ip -n "$a" route add "$net" via 10.9.0.2
done
mkdir "$bin/broker"
printf 'latchkey = 1\napplication = "bench"\n[peer.them]\nid = ["bob"]\n[[rule]]\nprotocol = "tcp"\nremote_port = [8080]\ndirection = "out"\naction = "protect"\npeer = "them"\n[[rule]]\naction = "bypass"\n' >"$bin/bench.toml"
for port in 8080 8081; do
  ip netns exec "$b" "$bin/connect" serve 0.0.0.0 $port &
  pids+=($!)
done
ip netns exec "$a" "$bin/bench_broker" "$bin/broker" 10.9.0.1 10.9.0.2 >"$bin/broker.log" 2>&1 &
pids+=($!)
until_there grep -qs '^ready' "$bin/broker.log" || die "the broker does not start: $(cat "$bin/broker.log")"
until_there ip netns exec "$a" "$bin/connect" trace 10.9.0.2 8080 2>/dev/null || die 'nobody answers'
launch() { # launch [OPTION...] -- CMD...
  ip netns exec "$a" "$bin/latchkey" run --socket "$bin/broker/broker.sock" -p "$bin/${policy:-bench}.toml" "$@"
}
latched() { launch -- "$@"; }
latched "$bin/connect" measure 10.9.0.2 8080 "$rounds" || die "$(tail -n 3 "$bin/broker.log")"
# Where UDP sockets are held, so that bind() has to look.
sed 's/"tcp"/"udp"/; /direction/d' "$bin/bench.toml" >"$bin/held.toml"
policy=held latched "$bin/connect" rare 10.9.0.2 8080 || die "$(tail -n 3 "$bin/broker.log")"
grep -q 'without a fence' "$bin/broker.log" ||
  "${BASH_SOURCE[0]%/*}/turns.sh" "$bin" "$a" || die "turns: $(tail -n 3 "$bin/turns.log" "$bin/broker.log")"
latched "$bin/connect" keyless 10.9.0.2 8080 || die "$(tail -n 3 "$bin/broker.log")"
ip netns exec "$a" "${BASH_SOURCE[0]%/*}/startup.sh" "$bin/latchkey" run --socket "$bin/broker/broker.sock" \
  -p "$bin/bench.toml" -- || die "start-up: $(tail -n 3 "$bin/broker.log")"

# No system call is added to those that move data: counted between two marks.
calls() { sed -n '/getppid()/,/getppid()/p' "$1" | sed 's/^[0-9]* *//; s/(.*//' | sort | uniq -c; }
ip netns exec "$a" strace -f -o "$bin/trace.bare" "$bin/connect" trace 10.9.0.2 8080 || die 'strace'
latched strace -f -o "$bin/trace.latched" "$bin/connect" trace 10.9.0.2 8080 || die 'strace'
count=$(calls "$bin/trace.bare" | awk '{ n += $1 } END { print n + 0 }')
if [ "$count" -gt 1500 ] && [ "$(calls "$bin/trace.bare")" = "$(calls "$bin/trace.latched")" ]; then
  echo "system calls of 500 rounds of send, write, recv: the same $count of the same kinds (strace)"
else
  die "system calls differ: $(diff <(calls "$bin/trace.bare") <(calls "$bin/trace.latched"))"
fi
