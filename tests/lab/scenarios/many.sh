# 200 connections at once, from ten threads, half of them non-blocking, all latched.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
bg a many latchkey run -p "$LAB/out.toml" -- "${python[@]}" "$programs/many.py" 10.9.0.2 8080 200
check "all are done" retry 50 grep -q '^echoed' "$LAB/many.log"
expect_eq "all are echoed" "$(grep '^echoed' "$LAB/many.log")" "echoed 200"
want_latches a 200 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
want_latches b 200 'ESTABLISHED 8080 10\.9\.0\.1 alice bob transport aes-gcm-16:256 -'
wire_protected wire a b canary-
end many
all_gone() { _shows a '.*' 0 && _shows b '.*' 1; }
check "all are gone at both ends" retry 40 all_gone
end srv
stop_pair
