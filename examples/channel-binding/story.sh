#!/bin/bash
# This folder's server and client on hosts of the lab, with certificates and then without.
set -u
# shellcheck source=../../tests/lab/programs/product.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../tests/lab/programs/product.sh"
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

run() { # run HOST ADDRESS SECRET: the client's words; its status in REPLY
  on "$1" latchkey run -p "$folder/client.toml" -- binding-client "$2" 7100 "$3"
}
serve_vault() { # serve_vault HOST
  bg "$1" "vault-$1" latchkey run -p "$folder/server.toml" -- binding-server 7100 s3cret
  wait_listen "$1" 7100
}
last() { # last HOST COUNT: what the server has said of its COUNTth client
  retry 10 test "$(wc -l <"$LAB/vault-$1.log")" -ge "$2" || fail "the server of $1 says nothing: $(cat "$LAB/vault-$1.log")"
  REPLY=$(sed -n "$2p" "$LAB/vault-$1.log")
}

ike a b c
for host in a b c; do start_broker "$host"; done
serve_vault b
serve_vault c

said=$(run a 10.9.0.2 s3cret) || fail "a and b: $said"
check "both know the secret, over the same channel: $said" grep -qE '^authenticated over ipsec-end-point-sha256 [0-9a-f]{64}$' <<<"$said"
last b 1
expect_eq "the binding is the same at both ends" "$REPLY" "$said"
again=$(run a 10.9.0.2 s3cret)
expect_eq "and the next connection's" "$again" "$said"

# The formula of docs/CHANNEL-BINDING.md, by other means.
expect_eq "it is what the certificates' keys give" "${said##* }" "$(/usr/bin/python3 -c "
import hashlib, subprocess
def key(name):
    pem = subprocess.run(['openssl', 'x509', '-in', name, '-pubkey', '-noout'], capture_output=True, check=True).stdout
    der = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'DER'], input=pem, capture_output=True, check=True).stdout
    return hashlib.sha256(der).digest()
print(bytes(x ^ y for x, y in zip(key('$LAB/ike/a.crt'), key('$LAB/ike/b.crt'))).hex())")"

other=$(run a 10.9.0.3 s3cret) || fail "a and c: $other"
last c 1
expect_eq "a and c have one of their own" "$REPLY" "$other"
check "which is another" [ "$other" != "$said" ]
third=$(run c 10.9.0.2 s3cret) || fail "c and b: $third"
check "as c and b have" [ "$third" != "$said" ] && [ "$third" != "$other" ]

said=$(run a 10.9.0.2 guess) && fail "a wrong secret was taken"
check "a wrong secret is refused: $said" grep -q '^refused over' <<<"$said"

# Two certificates of one name: nobody can say which of them it was.
_ike_openssl second b.lab -extensions host -CA "$LAB/ike/ca.crt" -CAkey "$LAB/ike/ca.key"
_ike_host a
cp "$LAB/ike/second.crt" "$REPLY/etc/swanctl/x509/"
on a swanctl --load-creds >"$LAB/creds" 2>&1 || fail "not loaded: $(cat "$LAB/creds")"
said=$(run a 10.9.0.2 s3cret) && fail "a binding out of doubt: $said"
expect_eq "no binding where two keys have the peer's name" "$said" "no binding"

# Pre-shared keys: nothing is made up. The secret is not even asked for.
end vault-b
end vault-c
for host in a b; do ike_stop "$host"; done
IKE_AUTH=psk ike a b
# The brokers ask for it too, of latches that lost theirs: one that is up already is not made again.
ike_up a a-b || ike_sas a | grep -q '^a-b .* INSTALLED' || fail "no SA by a pre-shared key"
serve_vault b
said=$(run a 10.9.0.2 s3cret) && fail "a binding by a pre-shared key: $said"
expect_eq "no binding with a pre-shared key" "$said" "no binding"
last b 1
expect_eq "at either end" "$REPLY" "no binding"
