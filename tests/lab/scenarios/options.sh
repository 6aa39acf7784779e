# What a program may ask about its sockets by getsockopt: state, ids and every latched parameter at both ends, over v4 and v6; nothing where there is no latch, where there is no broker, and without Latchkey.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
latched b srv "$LAB/in.toml" 'listen :: 8080'
expect srv ok
want srv 'state listener' 1
want srv 'peer-id listener' ENODATA
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080'
expect cli ok
want srv accept ::ffff:10.9.0.1
want cli state 2
want cli disposition 1
want cli peer-id bob
want cli local-id alice
want srv state 2
want srv peer-id alice
want srv local-id bob
want cli binding ENODATA
spi_out=$(awk '$1 == "10.9.0.1" && $2 == "10.9.0.2" { print $3 }' "$LAB/sa.7")
check "SAs are manual" [ -n "$spi_out" ]
want cli info 'True 1 2 1 0 7 256 50 0 1 0 1 6 AF_INET 8080 bob alice manual aes-gcm-16 - out rule-out -'
want cli xfrm EPERM

# A socket of another address family, one that is not connected, one whose flow is the system's.
want cli 'use v6' ok
want cli 'connect fd00::2 8080' ok
want cli peer-id bob
sock b plain 'listen :: 9999'
expect plain ok
want cli 'use free' ok
want cli 'connect 10.9.0.2 9999' ok
want cli state ENOTCONN
want cli peer-id ENOTCONN
want cli xfrm EPERM

# Broken: the state and its word are there to be asked for.
id=$(on a latchkey list --json | "${python[@]}" -c "import json, sys
print(next(each['id'] for each in json.load(sys.stdin)['latches'] if each['remote']['address'] == '10.9.0.2'))")
check "broken by the administrator" on a latchkey break "$id"
want cli 'use 0' ok
want cli state 3
ask cli info
check "and why" grep -q ' 3 1 .* admin$' <<<"$REPLY"

# No broker, no answer.
kill_broker a
want cli 'use v6' ok
want cli state EHOSTUNREACH
want cli peer-id EHOSTUNREACH

# Without Latchkey the kernel says what it says of any unknown level.
REPLY=$(once c 'connect 10.9.0.2 9999' state | tail -n 1)
check "without the shim: $REPLY" grep -qE 'EOPNOTSUPP|ENOPROTOOPT' <<<"$REPLY"
