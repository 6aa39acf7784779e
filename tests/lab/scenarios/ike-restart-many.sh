# The broker is killed and started with 1,000 latches of one peer, alone and with charon: it takes all of them over, and each is verified anew or broken with a reason, for the price of one exchange; then the peer's successor breaks them.
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

kill_broker a
ike_kill a
began=$EPOCHREALTIME
ike_restart a
start_broker a
# settled: sets VERIFIED, the latches under SAs that the charon of now has made, and BROKEN, those that broke and say why.
settled() {
  on a swanctl --list-sas --raw >"$LAB/sas" && on a latchkey list --json >"$LAB/list" || return 1
  read -r VERIFIED BROKEN < <("${python[@]}" -c '
import json, re, sys
spis = set(re.findall(r"spi-in=([0-9a-f]+)", open(sys.argv[1]).read()))
good = broken = 0
for latch in json.load(open(sys.argv[2]))["latches"]:
    if latch["state"] == "ESTABLISHED" and latch["peer_id"] == "b.lab":
        good += latch["spi_in"][2:] in spis
    broken += latch["state"] == "BROKEN" and latch["reason"] in ("km-lost", "no-sa")
print(good, broken)' "$LAB/sas" "$LAB/list")
  [ $((VERIFIED + BROKEN)) = "$count" ]
}
VERIFIED=0 BROKEN=0
check "both at once: each is verified anew, or broken with a reason" retry 60 settled
echo "good: $VERIFIED and $BROKEN, after $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms"
check "most are verified" [ "$VERIFIED" -gt "$BROKEN" ]
# One for all of them, and again every 3 s until it had read its configuration.
asked=$(grep -c 'vici initiate' "$LAB/charon-a.log")
check "charon was asked for SAs, $asked times" [ "$asked" -ge 1 ]
check "and not for each of them" [ "$asked" -le 10 ]

# The SAs of the charon of before too; nobody asks for others then.
ip -n a xfrm state flush
ip -n b xfrm state flush
ike_down a a-b
IKE_ID=mallory ike b
IKE_REMOTE='*.lab' ike a
began=$EPOCHREALTIME
check "mallory comes" ike_up b a-b
check "all are broken" retry 60 _shows a 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab .* (conflict-sa|no-sa|km-lost)' "$count"
echo "good: $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms after mallory began"
wire_protected wire a b canary-
