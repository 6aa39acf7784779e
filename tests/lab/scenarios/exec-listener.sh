# Socket activation: a listener made within the session is latched for whom it is handed to; of one that listened before it,
# nobody is served whom a rule would have protected, and who is latched by the SPD alone is.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

spd_port a "10.9.0.1 10.9.0.2" 23 theirs esp 7
spd_port b "10.9.0.2 10.9.0.1" 23 ours esp 7
start_pair
capture wire
activated() { # activated NAME OPTIONS: NAME hands its listener on, and serves as that
  tell "$1" "hand-listener $2 -i $LAB/$1.in take-listener"
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

# The kernel lets everybody in: nothing asked for an SA as it began to listen.
sock b before 'listen :: 8081'
expect before ok
activated before "-p,$LAB/in.toml"
sock c clear 'connect 10.9.0.2 8081' 'timeout 1.5' 'echo hello'
expect clear ok
expect clear ok
expect clear timeout
want_refusal b unlatched-listener
expect_eq "the server saw nobody" "$(grep -c accepted "$LAB/before.log")" 0
expect_eq "who asks for an SA" "$(once_latched a "$LAB/out.toml" 'timeout 1.5' 'connect 10.9.0.2 8081' | tail -n 1)" "= connect: timeout"

# What the SPD asks for it has seen to itself.
sock b spd 'listen 10.9.0.2 23'
expect spd ok
activated spd -v
expect_eq "by the SPD" "$(on a latchkey run -- "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 23' 'echo canary-implied' | tail -n 1)" "= echo: canary-implied"
check "the server saw who" grep -q 'accepted 10.9.0.1' "$LAB/spd.log"
check "it is said what the fence does not cover" grep -q 'handed is outside of the fence: descriptor 3: only the shim' "$LAB/spd.log"
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
