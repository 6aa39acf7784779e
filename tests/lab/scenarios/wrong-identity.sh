# The SA is somebody else's: EKEYREJECTED (peer-mismatch) at the client, silence at the server.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice mallory
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' 'connect fd00::2 8080' \
  'connect ::ffff:10.9.0.2 8080' 'nconnect 10.9.0.2 8080' >"$LAB/said"
expect_eq "four times EKEYREJECTED" "$(grep -c 'connect: EKEYREJECTED' "$LAB/said")" 4
want_refusal a peer-mismatch
expect_eq "nothing left a" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"

# The other way round: the client finds whom it wants, the server knows the client as somebody else.
manual_sa c b 9 mallory bob
start_broker c
latched c cli "$LAB/out.toml" 'timeout 3' 'connect 10.9.0.2 8080'
expect cli ok
expect cli timeout
expect_eq "the server saw nobody" "$(grep -c accepted "$LAB/srv.log")" 0
expect_eq "it gave no answer" "$(packets wire 'ip and src host 10.9.0.2 and dst host 10.9.0.3')" 0
check "the SYNs were ESP" [ "$(esp_packets wire b c)" -gt 0 ]
expect_eq "nothing in clear" "$(non_esp wire b c)" 0
want_latches b 1 '.*'
