# A thousand hostile policies (tests/hostile): each is refused with its line and reason, nothing starts, nothing changes.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

mkdir "$LAB/h"
"${python[@]}" "$(dirname "$0")/../../hostile/generate.py" "$LAB/h" "$(command -v latchkey)" >"$LAB/count" || fail "no policies"
printf 'latchkey = 1\n[[signer]]\nkey = "%s"\ngrants = ["bypass"]\n' "$(sed -n 2p "$LAB/h/signer.pub")" >"$LAB/system.toml"
on a mkdir -p /etc/latchkey
on a cp "$LAB/system.toml" /etc/latchkey/system.toml
start_broker a
# The control: the newest, signed, starts its program.
on a latchkey run -p "$LAB/h/newest.toml" -- /bin/touch "$LAB/control"
check "a good one starts its program" [ -e "$LAB/control" ]
state() {
  spd a
  on a latchkey list
  on a sh -c 'find /etc/latchkey /var/lib/latchkey -type f -exec md5sum {} +; ls /run/latchkey/pages'
}
state >"$LAB/before"
on a "${python[@]}" "$programs/hostile.py" "$LAB/h" "$LAB/started" >"$LAB/said" || fail "$(tail -n 20 "$LAB/said")"
expect_eq "all of them" "$(tail -n 1 "$LAB/said")" "$(cat "$LAB/count") refused, 0 wrong"
state >"$LAB/after"
diff "$LAB/before" "$LAB/after" || fail "something changed"
check "nothing was started" [ ! -e "$LAB/started" ]
