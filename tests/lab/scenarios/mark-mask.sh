# mark_mask of system.toml: the guard's bit is where it says, and a program cannot take it off its latched socket.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

for host in a b; do
  on $host sh -c 'mkdir -p /etc/latchkey && printf "latchkey = 1\nmark_mask = 0x00300000\n" >/etc/latchkey/system.toml'
done
start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
_under="latchkey run --keep-net-caps -p $LAB/out.toml --"
sock a cli 'connect 10.9.0.2 8080'
expect cli ok
want cli mark 0x200000
want cli 'mark 0' EPERM
want cli 'mark 0x100000' EPERM
want cli mark 0x200000
want cli 'echo canary-mark' canary-mark
want cli close ok
wire_protected wire a b canary-mark
end cli
end srv
stop_pair
