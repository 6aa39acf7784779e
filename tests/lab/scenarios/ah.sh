# AH: latched by protocol and integrity; what is readable on the wire is under AH all the same.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

key=0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
other=0x1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100
for host in a b; do
  for pair in "10.9.0.1 10.9.0.2 0x201 $key" "10.9.0.2 10.9.0.1 0x202 $other" "fd00::1 fd00::2 0x203 $key" "fd00::2 fd00::1 0x204 $other"; do
    read -r src dst spi secret <<<"$pair"
    on $host ip xfrm state add src "$src" dst "$dst" proto ah spi "$spi" reqid 7 mode transport replay-window 32 \
      auth-trunc 'hmac(sha256)' "$secret" 128 || fail "no AH here"
  done
done
pad() { # pad HOST ADDRESS4 ADDRESS6 PEER OWN
  on "$1" mkdir -p /etc/latchkey
  printf '[[sa]]\nreqid = 7\nremote = ["%s", "%s"]\nid = "%s"\nlocal_id = "%s"\n' "$2" "$3" "$4" "$5" |
    on "$1" tee /etc/latchkey/pad.toml >/dev/null
}
pad a 10.9.0.2 fd00::2 bob alice
pad b 10.9.0.1 fd00::1 alice bob
policy() { # policy FILE DIRECTION PORT-KEY ID
  printf 'latchkey = 1\napplication = "ah"\n[protection.ah]\nprotocol = "ah"\nintegrity = ["hmac-sha2-256"]\n[peer.p]\nid = ["%s"]\n[[rule]]\nname = "ah"\ndirection = "%s"\n%s = ["8080-8089"]\naction = "protect"\nprotection = "ah"\npeer = "p"\n' \
    "$4" "$2" "$3" >"$1"
}
policy "$LAB/in.toml" in local_port alice
policy "$LAB/out.toml" out remote_port bob
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
for address in 10.9.0.2 fd00::2; do
  latched a "cli$address" "$LAB/out.toml" "connect $address 8080"
  expect "cli$address" ok
  want "cli$address" "echo canary-ah" canary-ah
done
want_latches a 2 'ESTABLISHED [0-9]+ .* bob alice transport .*'
want_latches b 2 'ESTABLISHED 8080 .* alice bob transport .*'
check "list says AH" grep -q ' ah/hmac-sha2-256 ' <(on a latchkey list)
check "what is said can be read" [ "$(clear_octets wire canary-ah)" -ge 2 ]
check "under AH" [ "$(packets wire 'ip proto 51')" -gt 4 ]
check "v6 too" [ "$(packets wire 'ip6 proto 51')" -gt 4 ]
expect_eq "and never without" "$(packets wire 'tcp')" 0
# A clear client gets nothing; a rule that asks for ESP is not content with AH.
expect_eq "a clear client" "$(once c 'timeout 1.5' 'connect 10.9.0.2 8080' | tail -n 1)" "= connect: timeout"
policy_out "$LAB/esp.toml" '"8080-8089"' bob
expect_eq "ESP asked" "$(once_latched a "$LAB/esp.toml" 'connect 10.9.0.2 8080')" "= connect: EPROTO"
want_refusal a weak-protection
# Another's SA breaks it.
tell cli10.9.0.2 recv
impostor
expect cli10.9.0.2 ECONNRESET
want_refusal a conflict-sa
