# Why no SA can be had, each with its errno and reason word: no child that fits, nobody answers, authentication failed, another identity, proposals refused, no charon.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

refused() { # refused WHAT ADDRESS ERRNO REASON: REASON is said of this one
  mark a
  expect_eq "$1" "$(once_latched a "$LAB/out.toml" "connect $2 8080" | tail -n 1)" "= connect: $3"
  want_refusal a "$4"
}

policy_out "$LAB/out.toml" '"8080-8089"' b.lab c.lab
capture wire
ike a b
start_broker a
refused "no child covers 10.9.0.9" 10.9.0.9 ENOKEY no-child
refused "c does not answer" 10.9.0.3 ETIMEDOUT acquire-timeout

IKE_AUTH=psk ike b
refused "b proves itself in another way" 10.9.0.2 EKEYREJECTED auth-failed

IKE_ID=mallory ike b
refused "b is mallory" 10.9.0.2 EKEYREJECTED auth-failed

IKE_ESP=aes128gcm16-x25519 ike b
refused "b takes no such proposal" 10.9.0.2 EPROTO no-proposal

ike_stop a
refused "charon is away" 10.9.0.2 ENOKEY no-sa
on a latchkey why >"$LAB/why"
for word in no-child acquire-timeout no-proposal; do
  grep -qw "$word" "$LAB/why" || fail "latchkey why does not know $word: $(cat "$LAB/why")"
done
expect_eq "nothing in clear to the port" "$(packets wire 'tcp and portrange 8080-8089')" 0
