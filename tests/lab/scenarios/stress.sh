# Threads that connect, duplicate, close, fork and exec at random, and are killed: the broker answers each as it must, and keeps nothing.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

stress() { # stress NAME SEED OPERATIONS
  bg a "$1" latchkey run -p "$LAB/out.toml" -- stress run "$2" "$3" 3 10.9.0.2 8080 10.9.0.3 8080 "$enokey" 10.9.0.2 9000
}
open_files() { ls "/proc/$(cat "$LAB/broker-$1.pid")/fd" | wc -l; }
idle() { # idle HOST LATCHES [FILES]: so many latches, and no more open files of the broker's
  _shows "$1" '.*' "$2" && [ "$(open_files "$1")" -le "${3:-1000}" ]
}
enokey=$("${python[@]}" -c 'import errno; print(errno.ENOKEY)')

start_pair
bg b free stress serve 9000
bg b good latchkey run -p "$LAB/in.toml" -- stress serve 8080
wait_listen b 9000
wait_listen b 8080
capture wire
stress one 1 1500
wait "$(cat "$LAB/one.pid")"
expect_eq "all is as the model has it" $? 0
check "and it was at it" grep -qE '^asked [0-9]{2}' "$LAB/one.log"
check "and its latches are gone" retry 20 idle a 0
check "at b the listener's is left" retry 20 idle b 1
files_a=$(open_files a) files_b=$(open_files b)
kills() { # kills SEED…: each at work, and killed at some moment
  local seed
  for seed in "$@"; do
    stress "killed$seed" "$seed" 1000000000
    check "$seed is at work" retry 20 grep -q '^\.' "$LAB/killed$seed.log"
    sleep "0.$((RANDOM % 10))"
    kill -KILL "$(cat "$LAB/killed$seed.pid")"
  done
  check "a's broker has nothing of them any more" retry 20 idle a 0 "$files_a"
  check "nor has b's" retry 20 idle b 1 "$files_b"
}
memory() { sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(cat "$LAB/broker-$1.pid")/status"; } # in KiB
kills 2 3 4
memory_a=$(memory a) memory_b=$(memory b)
kills 5 6 7
for host in a b; do
  before=memory_$host grown=$(($(memory $host) - ${!before}))
  check "$host's broker grew by $grown KiB of ${!before}" [ "$grown" -lt 512 ]
done
expect_eq "no payload in clear" "$(clear_payload wire)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 50 ]
expect_eq "nothing to who has no keys" "$(packets wire 'tcp and host 10.9.0.3')" 0
end good
stop_pair
