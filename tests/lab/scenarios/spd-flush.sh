# The whole SPD is flushed on both hosts: the latched connection lives, protected, and clear clients still get nothing.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 :: 10.9.0.2 canary-flush
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
guards=$(ip -n b xfrm policy | grep -c '^src')
for round in 1 2; do
  ip -n a xfrm policy flush
  ip -n b xfrm policy flush
  want cli8080 "echo canary-flush-$round" "canary-flush-$round"
  want six "echo canary-flush-six-$round" "canary-flush-six-$round"
done
back() { [ "$(ip -n b xfrm policy | grep -c '^src')" -ge "$guards" ]; }
check "the guards are back" retry 5 back
refuses_clear c 10.9.0.2 8080
refuses_clear c fd00::2 8080
latched a late "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-flush-late'
expect late ok
expect late canary-flush-late
want_latches a 3 'ESTABLISHED .*'
want_latches b 3 'ESTABLISHED .*'
for name in late six cli8080 srv8080; do end $name; done
want_latches b 0 '.*'
wire_protected wire a b canary-flush
expect_eq "no answer to the clear client" "$(packets wire 'src port 8080')" 0
stop_pair
