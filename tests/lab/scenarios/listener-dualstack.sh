# One listener for both families: latched clients of either are served, clear ones of either get nothing.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 :: 10.9.0.2 canary-dual-4
latched a six "$LAB/out.toml" 'connect fd00::2 8080'
expect six ok
want six 'echo canary-dual-6' canary-dual-6
pair_listed 8080 4
want_latches a 1 'ESTABLISHED [0-9]+ fd00::2 bob alice transport aes-gcm-16:256 -'
want_latches b 1 'ESTABLISHED 8080 fd00::1 alice bob transport aes-gcm-16:256 -'

refuses_clear c 10.9.0.2 8080
refuses_clear c fd00::2 8080
refuses_clear a 10.9.0.2 8080
refuses_clear a fd00::2 8080
expect_eq "the server saw two clients" "$(grep -c accepted "$LAB/srv8080.log")" 2
expect_eq "it said nothing to a clear client" "$(packets wire 'src port 8080')" 0
expect_eq "nothing of the canaries in clear" "$(clear_octets wire canary-dual)" 0
expect_eq "clear packets are the clear clients' SYNs" "$(packets wire 'dst port 8080 and ip and tcp[13] != 2')" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
end six
end cli8080
end srv8080
want_latches b 0 '.*'
stop_pair
