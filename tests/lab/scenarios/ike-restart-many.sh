# The broker is killed and started with 1,000 latches of one peer: it takes all of them over, then its successor breaks all of them.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

count=${1:-1000}
start_key_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
bg a many latchkey run -p "$LAB/out.toml" -- "${python[@]}" "$programs/many.py" 10.9.0.2 8080 "$count"
check "all are done" retry 200 grep -q '^echoed' "$LAB/many.log"
expect_eq "all are echoed" "$(grep '^echoed' "$LAB/many.log")" "echoed $count"
all='ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches a "$count" "$all"
kill_broker a
began=$EPOCHREALTIME
start_broker a
want_latches a "$count" "$all"
echo "good: after $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms"
ike_down a a-b
IKE_ID=mallory ike b
IKE_REMOTE='*.lab' ike a
began=$EPOCHREALTIME
check "mallory comes" ike_up b a-b
check "all are broken" retry 60 _shows a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* (conflict-sa|no-sa)' "$count"
echo "good: $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms after mallory began"
wire_protected wire a b canary-
