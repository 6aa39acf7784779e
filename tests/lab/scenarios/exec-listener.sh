# Socket activation: a listener made within the session is latched for whom it is handed to; one that listened before it is
# latched from then on, and who came before that, whom a rule would have protected, is not served.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

spd_port a "10.9.0.1 10.9.0.2" 23 theirs esp 7
spd_port b "10.9.0.2 10.9.0.1" 23 ours esp 7
start_pair
capture wire
activated() { # activated NAME OPTIONS [-anyway]: NAME hands its listener on, and serves as that
  tell "$1" "hand-listener $2 -i $LAB/$1.in take-listener${3:-}"
  expect "$1" ok
  want "$1" serve ok
}
latched b within "$LAB/in.toml" 'listen :: 8080'
expect within ok
activated within -
for address in 10.9.0.2 fd00::2; do
  expect_eq "a at $address" "$(once_latched a "$LAB/out.toml" \
    "connect $address 8080" 'echo canary-activated' | tail -n 1)" "= echo: canary-activated"
done
refuses_clear c 10.9.0.2 8080
wire_protected wire a b canary-activated
expect_eq "the server saw two" "$(grep -c accepted "$LAB/within.log")" 2

# From here on nothing is taken in but under an SA: what the kernel let in before is refused.
from_then_on() { # from_then_on NAME PORT: c is first, in clear
  expect "first-$1" ok
  expect "first-$1" timeout
  want_refusal b unlatched-listener
  want_latches b 1 "LISTENER $2 - - - - - -"
  for address in 10.9.0.2 fd00::2; do
    expect_eq "$1: a at $address" "$(once_latched a "$LAB/out.toml" \
      "connect $address $2" "echo canary-$1" | tail -n 1)" "= echo: canary-$1"
  done
  refuses_clear c 10.9.0.2 "$2"
  expect_eq "$1: the server saw two" "$(grep -c accepted "$LAB/$1.log")" 2
  wire_protected wire a b "canary-$1"
}
sock b before 'listen :: 8081'
expect before ok
sock c first-before 'connect 10.9.0.2 8081' 'timeout 1.5' 'echo hello'
expect first-before ok
activated before "-p,$LAB/in.toml"
from_then_on before 8081

# One of which nobody says that it was handed over: by its first client that is refused.
mark b
sock b other 'listen :: 8083'
expect other ok
sock c first-other 'connect 10.9.0.2 8083' 'timeout 1.5' 'echo hello'
expect first-other ok
activated other "unnamed,-p,$LAB/in.toml" -anyway
from_then_on other 8083

# One that is started by its first client.
mark b
_under="systemd-socket-activate -E LATCHKEY_SOCKET -l 8082 latchkey run -p $LAB/in.toml --" sock b woken take-listener serve
wait_listen b 8082
sock c first-woken 'connect 10.9.0.2 8082' 'timeout 1.5' 'echo hello'
expect first-woken ok
expect woken ok
expect woken ok
from_then_on woken 8082

# What the SPD asks for it has seen to itself.
sock b spd 'listen 10.9.0.2 23'
expect spd ok
activated spd -v
expect_eq "by the SPD" "$(on a latchkey run -- "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 23' 'echo canary-implied' | tail -n 1)" "= echo: canary-implied"
check "the server saw who" grep -q 'accepted 10.9.0.1' "$LAB/spd.log"
check "it is said what the fence does not cover" grep -q 'handed is outside of the fence: descriptor 3: only the shim' "$LAB/spd.log"
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
