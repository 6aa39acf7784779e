# Pre-shared keys: both ends latch each other, both show psk, and a policy that wants certificates refuses such a peer on either side.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

certificates() { # certificates FILE: the same policy, for peers with certificates
  sed 's/^\[peer.them\]/&\nauth = ["pubkey"]/' "$LAB/$1.toml" >"$LAB/$1-pubkey.toml"
}

key_policies
certificates in
certificates out
IKE_AUTH=psk ike a b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-1'
expect cli ok
expect cli canary-1
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
want_field a ESTABLISHED auth psk
want_field b 'ESTABLISHED 8080' auth psk

# A client that wants a certificate: with the SA there, and without one.
expect_eq "the SA that is there" "$(once_latched a "$LAB/out-pubkey.toml" 'connect 10.9.0.2 8080')" "= connect: EKEYREJECTED"
want_refusal a peer-mismatch
# A server that wants one does not answer.
serve b strict "$LAB/in-pubkey.toml" :: 8081
once_latched a "$LAB/out.toml" 'timeout 4' 'connect 10.9.0.2 8081' 'echo canary-2' >"$LAB/said"
expect_eq "nobody is served" "$(grep -c 'canary-2$' "$LAB/said") $(grep -c '^accepted' "$LAB/strict.log")" '0 0'
want cli 'echo canary-3' canary-3
wire_protected wire a b canary
control wire
