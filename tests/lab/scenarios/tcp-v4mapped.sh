# IPv4 through IPv6 sockets (::ffff:10.9.0.2), at the client, at the server, at both.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
pair_connects 8080 0.0.0.0 ::ffff:10.9.0.2 canary-mapped-client
pair_connects 8081 :: 10.9.0.2 canary-mapped-server
pair_connects 8082 :: ::ffff:10.9.0.2 canary-mapped-both
for port in 8080 8081 8082; do
  want_latches b 1 "ESTABLISHED $port 10\.9\.0\.1 alice bob transport aes-gcm-16:256 -"
  want_latches b 1 "LISTENER $port - - - - - -"
done
want_latches a 3 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
refuses_clear c ::ffff:10.9.0.2 8080
refuses_clear c ::ffff:10.9.0.2 8082
for port in 8080 8081 8082; do
  want "cli$port" close ok
  end "srv$port"
done
want_latches b 0 '.*'
wire_protected wire a b canary-mapped
stop_pair
