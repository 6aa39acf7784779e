# The SAs are deleted: the connection stalls, nothing is in clear; it goes on when they are back in time.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
pair_connects 8080 :: 10.9.0.2 canary-stall-0
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
sa_delete a b 7
tell cli8080 'echo canary-stall-4'
tell six 'echo canary-stall-6'
sleep 4
silent cli8080
silent six
want_latches a 2 'ESTABLISHED .*'
expect_eq "a new connection has no SA" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: ENOKEY"
manual_sa a b 7 alice bob
expect cli8080 canary-stall-4
expect six canary-stall-6
want cli8080 'echo canary-stall-after' canary-stall-after
want_latches a 2 'ESTABLISHED .*'
want_latches b 2 'ESTABLISHED .*'
# Without SAs and past the grace time the latches break.
sa_delete a b 7
tell cli8080 recv
tell six recv
expect cli8080 ECONNRESET 30
expect six ECONNRESET 30
want_latches a 2 'BROKEN .* no-sa'
want_latches b 2 'BROKEN .* no-sa'
wire_protected wire a b canary-stall
