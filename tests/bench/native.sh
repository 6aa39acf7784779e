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
# What the fence has of that: runs with it and without, by turns.
if ! grep -q 'without a fence' "$bin/broker.log"; then
  for i in 1 2 3 4 5 6 7 8 9; do
    for fence in --fence --no-fence; do
      echo "$fence $(launch $fence -- "$bin/connect" medians 10.9.0.2 8080 $((rounds / 9)) 2>>"$bin/fences.log")"
    done
  done >"$bin/fences"
  grep -qE '^--(no-)?fence $' "$bin/fences" && die "$(tail -n 3 "$bin/fences.log")"
  median() { awk -v fence="$1" -v field="$2" '$1 == fence { print $field }' "$bin/fences" | sort -n | sed -n 5p; }
  awk -v bare="$(median --no-fence 2)" -v through="$(median --no-fence 3)" -v fenced_bare="$(median --fence 2)" -v fenced="$(median --fence 3)" 'BEGIN {
    printf "connect, p50, no fence   %10.1f us %10.1f us %+10.1f us   (behind it %.1f us bare, %.1f us latched: it adds %+.1f us; aim: 1 us)\n",
      bare, through, through - bare, fenced_bare, fenced, fenced - through }'
fi
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
