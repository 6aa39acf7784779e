# No broker at all: latchkey run brings its own, as root, and it goes with the last latch.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob
spd_save a
spd_save b
capture wire
control wire
pair_connects 8080 :: 10.9.0.2 canary-private
pair_connects 8081 0.0.0.0 10.9.0.2 canary-private
want_latches a 2 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
want_latches b 2 'ESTABLISHED 808[01] 10\.9\.0\.1 alice bob transport aes-gcm-16:256 -'
refuses_clear c 10.9.0.2 8080
# One ends; the others are not touched by its broker's leaving.
end cli8081
end srv8081
want_latches b 1 'ESTABLISHED .*'
sleep 3
want cli8080 'echo canary-private-on' canary-private-on
refuses_clear c fd00::2 8080
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
for name in cli8080 six srv8080; do end $name; done
wire_protected wire a b canary-private
gone() { [ -z "$(ip -n a xfrm policy)$(ip -n b xfrm policy)" ]; }
check "the brokers go, and their guards" retry 15 gone
spd_unchanged a
spd_unchanged b
# Those that stop at once do not leave the standing guards to each other.
for name in x y z; do bg a "$name" latchkey run -p "$LAB/out.toml" -- sh -c 'echo started; exec sleep 60'; done
three() { [ "$(cat "$LAB"/[xyz].log)" = $'started\nstarted\nstarted' ]; }
check "three brokers" retry 15 three
# shellcheck disable=SC2046
kill $(grep -lx latchkeyd /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3)
check "they stop, and their guards go" retry 15 gone
# Output taken by a shell ends with the program, not with its broker.
expect_eq "a substitution ends" "$(on a timeout 10 latchkey run -p "$LAB/out.toml" -- echo ended)" ended
# Without root there is none to be had, and the line says what to do.
on a setpriv --reuid=65534 --regid=65534 --clear-groups latchkey run -p "$LAB/out.toml" -- true 2>"$LAB/said"
expect_eq "as an ordinary user" $? 125
check "it says what to do" grep -q 'latchkeyd' "$LAB/said"
