# A program that moves to a network namespace of its own is refused there: the broker does not guard it.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
# Its own namespace has a link, SPD and routes of its own; a packet from there is nobody's to guard.
on a latchkey run -p "$LAB/out.toml" -- unshare --net -- sh -c \
  "ip link set lo up; ip link add d0 type dummy; ip link set d0 up; ip addr add 10.9.0.1/24 dev d0; exec /usr/bin/python3 -I -S $programs/sock.py 'timeout 3' 'connect 10.9.0.2 8080' 'nconnect 10.9.0.2 8080' 'listen 0.0.0.0 8080'" >"$LAB/said" 2>&1
expect_eq "connect" "$(grep -c 'connect: EACCES' "$LAB/said")" 2
want_refusal a foreign-netns
# A server policy there, too.
on b latchkey run -p "$LAB/in.toml" -- unshare --net -- /usr/bin/python3 -I -S "$programs/sock.py" 'listen 0.0.0.0 8081' >"$LAB/said" 2>&1
expect_eq "listen" "$(cat "$LAB/said")" "= listen: EACCES"
want_refusal b foreign-netns
expect_eq "nothing on the wire" "$(non_esp wire a b) $(esp_packets wire a b)" "0 0"
# The control: the same program where it belongs.
expect_eq "at home" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080')" "= connect: ok"
