# Calls that are easily forgotten: Fast Open, syscall(), listen without bind, SO_REUSEPORT, a second try.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
policy_in "$LAB/any.toml" '"1-65535"' alice
policy_out "$LAB/to-any.toml" '"1-65535"' bob
start_broker a
start_broker b
for host in a b; do on $host sysctl -qw net.ipv4.tcp_fastopen=0x403; done
capture wire
serve b srv "$LAB/in.toml" :: 8080
# Before there are SAs: nothing may leave by any of these ways.
latched a cli "$LAB/out.toml"
want cli 'connect 10.9.0.2 8080' ENOKEY
want cli 'again 10.9.0.2 8080' ENOKEY
want cli 'use 2' ok
want cli 'syscall-connect 10.9.0.2 8080' ENOKEY
for address in 10.9.0.2 fd00::2; do
  ask cli "fastopen $address 8080 canary-odd-fast"
  check "no Fast Open: $REPLY" [ "${REPLY#*: }" != ok ]
  ask cli "fastopen-connect $address 8080 canary-odd-fast"
  check "no Fast Open by connect: $REPLY" [ "${REPLY#*: }" = ENOKEY ]
done
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"

manual_sa a b 7 alice bob
want cli 'use 0' ok
want cli 'again 10.9.0.2 8080' ok
want cli 'echo canary-odd-again' canary-odd-again
want cli 'use 2' ok
want cli 'syscall-connect 10.9.0.2 8080' ok
want cli 'echo canary-odd-syscall' canary-odd-syscall
ask cli 'fastopen 10.9.0.2 8080 canary-odd-fast'
want cli 'use 3' ok
want cli 'fastopen-connect 10.9.0.2 8080 canary-odd-fast' ok
want cli recv canary-odd-fast

# Server-side Fast Open is refused; a listener that never bound is latched like any.
latched b fast "$LAB/in.toml" 'fastopen-listen :: 8081'
expect fast EOPNOTSUPP
for family in 4 6; do
  latched b "free$family" "$LAB/any.toml"
  ask "free$family" "listen-unbound $family"
  port=${REPLY#*: }
  refuses_clear c 10.9.0.2 "$port"
  tell "free$family" accept
  latched a "to-free$family" "$LAB/to-any.toml" "connect 10.9.0.2 $port"
  expect "to-free$family" ok
  answer "free$family"
done

# Two servers on one port, each of a policy of its own: latched alike, or the later one is refused.
cp "$LAB/in.toml" "$LAB/same.toml"
policy_header "$LAB/clear.toml"
printf '[[rule]]\nname = "all"\naction = "bypass"\n' >>"$LAB/clear.toml"
latched b one "$LAB/in.toml" 'listen :: 8082 shared' serve
latched b two "$LAB/same.toml" 'listen :: 8082 shared' serve
for name in one two; do expect $name ok; expect $name ok; done
latched b clear "$LAB/clear.toml" 'listen :: 8082 shared' 'listen :: 8083 shared'
expect clear EACCES
expect clear ok
mark b
latched b late "$LAB/in.toml" 'listen :: 8083 shared'
expect late EACCES
want_refusal b unlatched-listener
# When one goes, the guards stay for the other.
end one
refuses_clear c 10.9.0.2 8082
refuses_clear c fd00::2 8082
for address in 10.9.0.2 fd00::2; do
  want cli "connect $address 8082" ok
  want cli "echo canary-odd-shared" canary-odd-shared
done
wire_protected wire a b canary-odd
