# Signed policies: a signer's grants, and every way a signature can be wrong; a policy found by the program's path.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

on a mkdir -p /etc/latchkey/policy.d
cd "$LAB" || exit 2
latchkey keygen -W -s signer.key -p signer.pub >/dev/null || fail "no key"
latchkey keygen -W -s stranger.key -p stranger.pub >/dev/null || fail "no second key"
key=$(sed -n 2p signer.pub)
printf 'latchkey = 1\n[[signer]]\nkey = "%s"\ngrants = ["bypass"]\napplications = ["orders"]\n' "$key" >system.toml
on a cp "$LAB/system.toml" /etc/latchkey/system.toml
manual_sa a b 7 alice bob
spd_port a "10.9.0.1 10.9.0.2" 8080 theirs esp 7
start_broker a
capture wire
sock b plain 'listen :: 8080' serve
wait_listen b 8080
policy() { # policy NAME [LINES]
  printf 'latchkey = 1\napplication = "orders"\n%b[[rule]]\naction = "bypass"\n' "${2:-}" >"$1.toml"
}
# refused NAME REASON: the program is not started, and one line says why.
refused() {
  as a 1000 "$LAB/$1.toml" 'connect 10.9.0.2 8080' >said 2>&1
  expect_eq "$1: status" $? 125
  grep -q "^latchkey: .*($2)\$" said || fail "$1: it says $(cat said)"
  expect_eq "$1: one line" "$(wc -l <said)" 1
}
policy plain
expect_eq "by nobody's word" "$(as a 1000 "$LAB/plain.toml" 'connect 10.9.0.2 8080')" "= connect: EACCES"
want_refusal a unprivileged-bypass
policy good 'serial = 7\n'
latchkey sign --key signer.key good.toml >/dev/null || fail "it is not signed"
expect_eq "by the signer's" "$(as a 1000 "$LAB/good.toml" 'connect 10.9.0.2 8080' 'echo canary-signed' | tail -n 1)" "= echo: canary-signed"
check "in clear, as granted" [ "$(clear_octets wire canary-signed)" -ge 2 ]
expect_eq "by hand" "$(on a env LD_PRELOAD="$(dirname "$(command -v latchkey)")/liblatchkey.so" LATCHKEY_POLICY="$LAB/good.toml" setpriv --reuid=1000 --clear-groups "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 8080')" "= connect: ok"
# minisign signs and verifies as well.
check "minisign verifies ours" minisign -V -q -p signer.pub -m good.toml
policy theirs 'serial = 8\n'
minisign -S -s signer.key -m theirs.toml </dev/null >/dev/null || fail "minisign does not sign"
expect_eq "by minisign's" "$(as a 1000 "$LAB/theirs.toml" 'connect 10.9.0.2 8080')" "= connect: ok"
# Rolled back: serial 8 was seen.
refused good policy-rollback
policy none
latchkey sign --key signer.key none.toml >/dev/null
refused none policy-rollback
# By a stranger; changed; with a signature of something else; of no form at all; empty.
policy strange 'serial = 9\n'
latchkey sign --key stranger.key strange.toml >/dev/null
refused strange bad-signature
policy changed 'serial = 9\n'
latchkey sign --key signer.key changed.toml >/dev/null
sed -i 's/serial = 9/serial = 10/' changed.toml
refused changed bad-signature
policy other 'serial = 9\n'
cp good.toml.minisig other.toml.minisig
refused other bad-signature
echo garbage >other.toml.minisig
refused other bad-signature
: >other.toml.minisig
refused other bad-signature
# Over; of an application that the signer may not sign for; in error, though signed.
policy over 'serial = 9\nnot_after = 2020-02-29\n'
latchkey sign --key signer.key over.toml >/dev/null
refused over policy-expired
check "verify says so" [ "$(latchkey verify --key signer.pub over.toml 2>&1 | grep -c policy-expired)" = 1 ]
policy wrong 'serial = 9\n'
sed -i 's/orders/other/' wrong.toml
latchkey sign --key signer.key wrong.toml >/dev/null
refused wrong bad-signature
# Of these, serial 9 was never used.
policy nine 'serial = 9\n'
latchkey sign --key signer.key nine.toml >/dev/null
expect_eq "serial 9" "$(as a 1000 "$LAB/nine.toml" 'connect 10.9.0.2 8080')" "= connect: ok"
# What was seen outlives the broker.
stop_broker a
start_broker a
refused theirs policy-rollback
# Found by the program's path, signature and all.
sed "s|^serial.*|serial = 10\nprogram = [\"$(readlink -f /usr/bin/python3)\"]|" nine.toml >found.toml
latchkey sign --key signer.key found.toml >/dev/null
on a cp "$LAB/found.toml" "$LAB/found.toml.minisig" /etc/latchkey/policy.d/
expect_eq "without -p" "$(on a setpriv --reuid=1000 --regid=1000 --clear-groups latchkey run -- "$(readlink -f /usr/bin/python3)" -I -S "$programs/sock.py" 'connect 10.9.0.2 8080')" "= connect: ok"
