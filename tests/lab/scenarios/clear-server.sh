# A latched client does not talk to a clear server: nothing of it leaves in clear.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
sock b clear 'listen :: 8080' serve
expect clear ok
expect clear ok
latched a cli "$LAB/out.toml" 'timeout 3'
expect cli ok
want cli 'connect 10.9.0.2 8080' timeout
want cli 'use six' ok # the sockets stay open: the kernel answers for one that is gone with a clear RST
want cli 'connect fd00::2 8080' timeout
want cli 'use clear' ok
# Clear and latched connections of one program side by side; what no rule speaks of stays as it is.
sock b other 'listen :: 7000' serve
expect other ok
expect other ok
want cli 'connect 10.9.0.2 7000' ok
want cli 'echo unprotected-by-policy' unprotected-by-policy
check "which is seen in clear" [ "$(clear_octets wire unprotected-by-policy)" -gt 0 ]
expect_eq "nothing for the rule's port left a in clear" "$(packets wire 'src host 10.9.0.1 and dst port 8080')" 0
expect_eq "nor over IPv6" "$(packets wire 'src host fd00::1 and dst port 8080')" 0
check "its SYNs were ESP" [ "$(esp_packets wire a b)" -gt 0 ]
expect_eq "the server saw nobody" "$(grep -c accepted "$LAB/clear.log")" 0
end cli
stop_pair
