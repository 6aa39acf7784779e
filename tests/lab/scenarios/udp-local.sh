# A held UDP socket and its own host: it goes as for TCP. Who asks is answered, by the loopback device alone; a server is not for its own host; what the link brings with such an address is not from there.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

link() { "${python[@]}" "$programs/wire.py" "$@" || fail "wire.py $*"; }
policy_in "$LAB/in.toml" '"8080-8089"' alice
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
sed '/^remote_port/d' "$LAB/out.toml" >"$LAB/all.toml"
manual_sa a b 7 alice bob
start_broker a
start_broker b
capture wire
latched b srv "$LAB/in.toml" 'udp-bind :: 8080' 'timeout 3'
expect srv ok
expect srv ok

# A resolver of a's own, in clear; and one port of its rules, and one of no rule.
for place in '127.0.0.53 8085' '127.0.0.53 53' '10.9.0.1 8086' '::1 8087' 'fd00::1 8088'; do
  sock a "own-${place#* }" "udp-bind $place"
  expect "own-${place#* }" ok
done
# port: of the only socket whose port is the kernel's choice.
port() { on a ss -Hlun 'sport > :30000' | awk 'NR == 1 { sub(/.*:/, "", $4); print $4 }'; }
for policy in out all; do
  latched a "cli-$policy" "$LAB/$policy.toml" 'udp-new 10.9.0.2' 'timeout 3'
  expect "cli-$policy" ok
  expect "cli-$policy" ok
  want "cli-$policy" 'sendto 10.9.0.2 8080 canary-first' ok
  want srv udp-answer canary-first
  want "cli-$policy" recv canary-first
  for place in '127.0.0.53 8085' '127.0.0.53 53' '10.9.0.1 8086'; do
    want "cli-$policy" "sendto $place clear-own-${place#* }" ok
    want "own-${place#* }" udp-answer "clear-own-${place#* }"
    want "cli-$policy" recv "clear-own-${place#* }"
  done
  # The same addresses from the link are none of ours; from our own programs they are.
  for source in 127.0.0.53 10.9.0.1; do link udp $source 10.9.0.1 8085 "$(port)" clear-made-up; done
  once a "udp-from 127.0.0.1 $(port) 9500 clear-local" >/dev/null
  want "cli-$policy" recv clear-local
  end "cli-$policy"
done
latched a six "$LAB/all.toml" 'udp-new fd00::2' 'timeout 3'
expect six ok
expect six ok
want six 'sendto fd00::2 8080 canary-six' ok
want srv udp-answer canary-six
want six recv canary-six
for place in 'fd00::1 8088' '::1 8087' '::ffff:127.0.0.53 8085'; do
  link udp fd00::1 fd00::1 8088 "$(port)" clear-made-up
  want six "sendto $place clear-own-six" ok
  want "own-${place#* }" udp-answer clear-own-six
  want six recv clear-own-six
done
# A server is not for its own host, as one of TCP's is not, unless a rule says so.
once b 'udp-from 127.0.0.1 8080 9000 clear-own' >/dev/null
once b 'udp-from 10.9.0.2 8080 9000 clear-own' >/dev/null
once b 'udp-from ::1 8080 9000 clear-own' >/dev/null
want srv recvfrom timeout
expect_eq "nothing of that is on the link" "$(clear_octets wire clear-own)" 0
expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
