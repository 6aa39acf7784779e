# shellcheck shell=bash
# What scenarios with strongSwan share; sources product.sh. The ends are a.lab at a and b.lab at b.
# shellcheck source=product.sh
. "${BASH_SOURCE[0]%/*}/product.sh"

# key_policies [EXTRA]: $LAB/in.toml and $LAB/out.toml as pair_policies, for strongSwan's names; EXTRA
# lines go into the rule.
key_policies() {
  policy_in "$LAB/in.toml" '"8080-8089"' a.lab
  policy_out "$LAB/out.toml" '"8080-8089"' b.lab
  [ $# = 0 ] || printf '%s\n' "$@" | tee -a "$LAB/in.toml" >>"$LAB/out.toml"
}

# pins PIN: both policies' protection is pinned so.
pins() {
  sed -i "s/^\[protection.strong\]/&\npin = \"$1\"/" "$LAB/in.toml" "$LAB/out.toml"
}

# start_key_pair: charon on a and b, idle; policies; brokers on both.
start_key_pair() {
  [ -e "$LAB/in.toml" ] || key_policies
  ike a b
  start_broker a
  start_broker b
}

# field HOST PATTERN NAME: of the first latch of `latchkey list --json` whose line of `latches` matches.
field() {
  on "$1" latchkey list --json | "${python[@]}" -c '
import json, re, sys
for latch in json.load(sys.stdin)["latches"]:
    protection = latch["protection"] or {}
    line = " ".join(str(x) for x in (latch["state"], (latch["local"] or {}).get("port"), latch["peer_id"]))
    if re.search(sys.argv[1], line):
        value = latch
        for part in sys.argv[2].split("."):
            value = value[part] if value is not None else None
        print(value)
        break' "$2" "$3"
}

# want_field HOST PATTERN NAME VALUE
want_field() {
  expect_eq "$1: $3 of \"$2\"" "$(field "$1" "$2" "$3")" "$4"
}

# wait_state HOST PATTERN SECONDS: until a line of `latches` matches.
wait_state() {
  retry "$3" _shows_some "$1" "$2" || fail "$1 does not show \"$2\" in $3 s: $(latches "$1")"
  echo "good: $1 shows \"$2\""
}
_shows_some() { latches "$1" | grep -qE "^($2)\$"; }
