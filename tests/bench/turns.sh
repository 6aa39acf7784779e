#!/bin/bash
# turns.sh BIN NETNS: what the fence adds to a connect (run by native.sh).
#
# Three programs make 50 connects each way by turns: one that the fence is around, between two that it is not. Each
# block of the fenced one is beside the mean of its two neighbours, so that what the machine does meanwhile falls out;
# what is printed are medians of these differences, over all blocks of some such threes. The two neighbours beside each
# other say what the measurement cannot tell from nothing. The broker notes nothing for the fence about connects to
# 10.9.0.3 (bench_broker.cc), as where there is no fence: what it does for one is in the difference.
set -u
bin=$1 netns=$2
launches=${TURNS_LAUNCHES:-6} blocks=${TURNS_BLOCKS:-80}
for ((launch = 0; launch < launches; launch++)); do
  rm -f "$bin"/turn.*
  mkfifo "$bin"/turn.{1,2,3} || exit 1
  pids=() next=(0 2 3 1)
  for turn in 1 2 3; do
    fence=--no-fence to=10.9.0.3
    [ $turn != 2 ] || fence=--fence to=10.9.0.2
    ip netns exec "$netns" "$bin/latchkey" run --socket "$bin/broker/broker.sock" -p "$bin/bench.toml" $fence -- \
      "$bin/connect" turns $to 8080 "$blocks" "$bin/turn.$turn" "$bin/turn.${next[turn]}" \
      >"$bin/turn.$turn.took" 2>>"$bin/turns.log" &
    pids+=($!)
  done
  # Whoever has the first turn passes it on when all is over; nobody takes it then.
  # shellcheck disable=SC2016
  timeout 10 bash -c 'echo -n x >"$1"' - "$bin/turn.1" || exit 1
  for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
  paste -d ' ' "$bin"/turn.{1,2,3}.took >>"$bin/turns"
done
[ "$(grep -cE '^([0-9]+ ){5}[0-9]+$' "$bin/turns")" = $((launches * blocks)) ] || exit 1
# Fields: bare and latched, of the first neighbour, the fenced one, the second neighbour.
median() { awk "{ print $1 }" "$bin/turns" | sort -n | sed -n "$((launches * blocks / 2))p"; }
line() { # line NAME FIELD
  local before="\$$2" fenced="\$($2 + 2)" after="\$($2 + 4)"
  awk -v name="$1" -v n="$(median "($before + $after) / 2")" -v f="$(median "$fenced")" \
    -v d="$(median "$fenced - ($before + $after) / 2")" -v noise="$(median "$after - $before")" 'BEGIN {
    printf "%-23s %10.2f us %10.2f us %+10.2f us   (aim: 1 us; two without a fence: %+.2f us)\n",
      name, n / 1000, f / 1000, d / 1000, noise / 1000 }'
}
printf '%-23s %13s %13s %13s\n' 'the fence, by turns' 'no fence' fence added
line 'connect, bypassed, TCP' 1
line 'connect, latched, TCP' 2
