# The shim preloaded by hand works the same with a broker, and fails closed without one or with a bad policy.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
manual_sa a b 7 alice bob
sock b clear 'listen :: 8080' serve
expect clear ok
expect clear ok
capture wire
control wire
by_hand() { # by_hand POLICY COMMAND...
  local policy=$1
  shift
  on a env "LD_PRELOAD=$LATCHKEY_SHIM" "LATCHKEY_POLICY=$policy" "${python[@]}" "$programs/sock.py" 'timeout 5' "$@" 2>"$LAB/errors" |
    tail -n +2
}
expect_eq "without a broker" "$(by_hand "$LAB/out.toml" 'connect 10.9.0.2 8080' 'nconnect fd00::2 8080' 'connect ::ffff:10.9.0.2 8080' 'listen :: 8080')" \
  "= connect: EHOSTUNREACH
= nconnect: EHOSTUNREACH
= connect: EHOSTUNREACH
= listen: EHOSTUNREACH"
start_broker a
for policy in "$LAB/none.toml" /dev/null "$LAB/wrong.toml"; do
  echo 'latchkey = 3' >"$LAB/wrong.toml"
  said=$(by_hand "$policy" 'connect 10.9.0.2 8080' 'nconnect fd00::2 8080' 'listen :: 8080')
  expect_eq "policy $policy: $said" "$(grep -cE ': (EACCES|EHOSTUNREACH)$' <<<"$said")" 3
done
expect_eq "the server saw nobody but the control" "$(grep -c accepted "$LAB/clear.log")" 0
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"
end clear
start_broker b
_under="env LD_PRELOAD=$LATCHKEY_SHIM LATCHKEY_POLICY=$LAB/in.toml" sock b srv 'listen :: 8080' serve
expect srv ok
expect srv ok
_under="env LD_PRELOAD=$LATCHKEY_SHIM LATCHKEY_POLICY=$LAB/out.toml" sock a cli 'connect 10.9.0.2 8080' 'echo canary-by-hand'
expect cli ok
expect cli canary-by-hand
want cli 'in-child connect fd00::2 8080' 'connect: ok'
pair_listed 8080 4
refuses_clear c 10.9.0.2 8080
wire_protected wire a b canary-by-hand
tell cli recv
impostor
expect cli ECONNRESET
