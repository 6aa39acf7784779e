# A policy that is wrong, missing or unreadable: exit 125, one line that says where, and nothing is run.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob
start_broker a
capture wire

refused() { # refused WHAT POLICY PATTERN [COMMAND...]: latchkey run must say the line and nothing else
  local what=$1 policy=$2 pattern=$3
  shift 3
  on a "$@" latchkey run -p "$policy" -- touch "$LAB/was-run" >"$LAB/said" 2>&1
  expect_eq "$what: status" $? 125
  expect_eq "$what: lines" "$(wc -l <"$LAB/said")" 1
  grep -qE "$pattern" "$LAB/said" || fail "$what: it says $(cat "$LAB/said")"
  [ ! -e "$LAB/was-run" ] || fail "$what: the program was run"
}
wrong() { # wrong WHAT PATTERN: the policy on standard input
  cat >"$LAB/wrong.toml"
  refused "$1" "$LAB/wrong.toml" "^latchkey: $LAB/wrong.toml:$2"
}
refused missing "$LAB/none.toml" "$LAB/none.toml: No such file or directory"
refused directory "$LAB" "$LAB: (not a regular file|Is a directory)"
chmod 600 "$LAB/out.toml"
refused unreadable "$LAB/out.toml" "$LAB/out.toml: Permission denied" setpriv --reuid=65534 --regid=65534 --clear-groups
chmod 644 "$LAB/out.toml"
wrong 'syntax' '1:[0-9]+: ' <<<'latchkey = '
wrong 'unknown key' '3:1: .*bogus' <<<$'latchkey = 1\napplication = "x"\nbogus = 1'
wrong 'wrong value' '4:10: .*deny' <<<$'latchkey = 1\napplication = "x"\n[[rule]]\naction = "deny"'
wrong 'nothing that can be latched' '4:12: .*sctp' <<<$'latchkey = 1\napplication = "x"\n[[rule]]\nprotocol = "sctp"\ndirection = "in"\naction = "protect"'
wrong 'unknown peer' '5:8: .*nobody' <<<$'latchkey = 1\napplication = "x"\n[[rule]]\naction = "protect"\npeer = "nobody"'
wrong 'another version' '1:12: ' <<<$'latchkey = 2\napplication = "x"'
wrong 'a duplicate key' '3:[0-9]+: ' <<<$'latchkey = 1\napplication = "x"\nlatchkey = 1'
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"
# The same as an ordinary user, with a policy that is good, works.
start_broker b
serve b srv "$LAB/in.toml" :: 8080
expect_eq "as nobody" "$(on a setpriv --reuid=65534 --regid=65534 --clear-groups latchkey run -p "$LAB/out.toml" -- \
  "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 8080' 'echo canary-nobody' | tail -n 1)" "= echo: canary-nobody"
wire_protected wire a b canary-nobody
# A policy that is good for other programs only.
sed 's|^application.*|&\nprogram = ["/usr/bin/other"]|' "$LAB/out.toml" >"$LAB/other.toml"
refused 'for another program' "$LAB/other.toml" 'does not hold'
