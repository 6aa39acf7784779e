# Parent and child connect at the same moment, 50 rounds: each gets its own answer.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
on a timeout 50 latchkey run -p "$LAB/out.toml" -- \
  "${python[@]}" "$programs/forkrace.py" 10.9.0.2 8080 50 >"$LAB/four" 2>"$LAB/errors"
expect_eq "all of them good" "$(cat "$LAB/four" "$LAB/errors")" "good 50"
expect_eq "the server saw them all" "$(grep -c accepted "$LAB/srv.log")" 101
wire_protected wire a b canary-
