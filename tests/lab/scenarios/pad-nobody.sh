# SAs that the PAD says nothing about: EKEYREJECTED (peer-unknown), at both ends.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
on a sh -c ': >/etc/latchkey/pad.toml'
capture wire
serve b srv "$LAB/in.toml" :: 8080
once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' 'nconnect fd00::2 8080' >"$LAB/said"
expect_eq "twice EKEYREJECTED" "$(grep -c 'connect: EKEYREJECTED' "$LAB/said")" 2
want_refusal a peer-unknown
# A PAD with an error in it names nobody either.
on a sh -c 'printf "[[sa]]\nreqid = 7\nremote = [\"10.9.0.2\"]\nidd = \"bob\"\n" >/etc/latchkey/pad.toml'
expect_eq "a PAD in error" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: EKEYREJECTED"
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"

# At the server: nobody is known, so nobody is answered.
on b sh -c ': >/etc/latchkey/pad.toml'
end srv
serve b srv "$LAB/in.toml" :: 8080
on a sh -c 'printf "[[sa]]\nreqid = 7\nremote = [\"10.9.0.2\", \"fd00::2\"]\nid = \"bob\"\nlocal_id = \"alice\"\nauth = \"manual\"\n" >/etc/latchkey/pad.toml'
latched a cli "$LAB/out.toml" 'timeout 3' 'connect 10.9.0.2 8080'
expect cli ok
expect cli timeout
expect_eq "the server saw nobody" "$(grep -c accepted "$LAB/srv.log")" 0
expect_eq "nothing in clear" "$(non_esp wire a b)" 0
