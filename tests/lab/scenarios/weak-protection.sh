# AES-128 where 256 is asked, no authentication at all: EPROTO (weak-protection).
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob aes-gcm-16:128
manual_sa c b 9 carol bob null/hmac-sha2-256
start_broker a
start_broker b
start_broker c
capture wire
serve b srv "$LAB/in.toml" :: 8080
once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' 'nconnect fd00::2 8080' >"$LAB/said"
expect_eq "twice EPROTO" "$(grep -c 'connect: EPROTO' "$LAB/said")" 2
want_refusal a weak-protection
expect_eq "no encryption" "$(once_latched c "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: EPROTO"
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b) $(esp_packets wire b c)" "0 0 0"
# A client that is content with 128 bits is not served by a server that is not.
policy_header "$LAB/weak.toml" system 128
sed -n '/^\[peer/,$p' "$LAB/out.toml" >>"$LAB/weak.toml"
expect_eq "the server wants 256" "$(once_latched a "$LAB/weak.toml" 'timeout 3' 'connect 10.9.0.2 8080' | tail -n 1)" "= connect: timeout"
expect_eq "nothing in clear" "$(non_esp wire a b)" 0
expect_eq "the server saw nobody" "$(grep -c accepted "$LAB/srv.log")" 0
