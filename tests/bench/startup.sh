#!/bin/bash
# startup.sh LAUNCH...: what starting `true` costs bare, by `LAUNCH true`, and as a child of a program that LAUNCH started.
#
# Medians, with what the shell that starts them needs for it in all. They mean something on an idle machine only.
set -u
rounds=${STARTUP_ROUNDS:-100}
time_of() { # time_of CMD...: its microseconds
  local before=${EPOCHREALTIME/[.,]/}
  "$@" || exit 1
  echo $((${EPOCHREALTIME/[.,]/} - before))
}
if [ "${1:-}" = --child ]; then
  for ((i = 0; i < rounds; i++)); do time_of /bin/true; done
  exit
fi
median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }
bare=$(for ((i = 0; i < rounds; i++)); do time_of /bin/true; done | median)
run=$(for ((i = 0; i < rounds; i++)); do time_of "$@" /bin/true; done | median)
child=$(STARTUP_ROUNDS=$rounds "$@" "$BASH" "$0" --child | median)
line() { awk -v aim="$4" -v n="$1" -v a="$2" -v b="$3" 'BEGIN { printf "%-32s %7.2f ms %9.2f ms %+9.2f ms   (aim: %s ms)\n", n, a / 1000, b / 1000, (b - a) / 1000, aim }'; }
[ -n "$bare" ] && [ -n "$run" ] && [ -n "$child" ] || exit 1
line 'start of a program' "$bare" "$run" 15
line 'start of its child' "$bare" "$child" 1
