# One end closes, the other a second later: the kernel's last acknowledgements leave under the SA, and nothing lingers.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
# The client goes first at two servers, the server at two others.
latched b first "$LAB/in.toml" 'listen :: 8080'
latched b second "$LAB/in.toml" 'listen :: 8081'
latched a cli "$LAB/out.toml"
expect first ok
expect second ok
for address in 10.9.0.2 fd00::2; do
  want cli "connect $address 8080" ok
  ask first accept
  want cli close ok
  want first recv eof
  want cli 'use other' ok
  want cli "connect $address 8081" ok
  ask second accept
  want second close ok
  want cli recv eof
  sleep 1
  want first close ok
  want cli close ok
  want cli 'use 0' ok
done
settled() { # nobody waits for an acknowledgement any more
  ! on "$1" ss -Htan state last-ack state closing state fin-wait-1 state fin-wait-2 | grep -q .
}
check "b waits for nothing" retry 5 settled b
check "a waits for nothing" retry 5 settled a
expect_eq "both have been in TIME_WAIT" "$(for host in a b; do on $host ss -Htan state time-wait | wc -l; done | tr '\n' ' ')" "2 2 "
want_latches a 0 '.*'
want_latches b 2 '.*'
check "there was ESP" [ "$(esp_packets wire a b)" -gt 20 ]
expect_eq "nothing but ESP" "$(non_esp wire a b)" 0
end first
end second
end cli
stop_pair
