# SAs of two identities cover the address: EKEYREJECTED (ambiguous-peer), at both ends.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
manual_sa a b 9 mallory eve
capture wire
serve b srv "$LAB/in.toml" :: 8080
once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' 'connect fd00::2 8080' >"$LAB/said"
expect_eq "twice EKEYREJECTED" "$(grep -c 'connect: EKEYREJECTED' "$LAB/said")" 2
want_refusal a ambiguous-peer
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"

# With one of them gone it is clear again who is there; the server needs a new listener, since what
# waited at the old one might have been the other's.
sa_delete a b 9
end srv
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-again'
expect cli ok
expect cli canary-again
wire_protected wire a b canary-again
