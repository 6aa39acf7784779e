# What goes past a preload that is there is stopped by the fence: instructions of its own, io_uring, libc opened by its name
# (dlopen), libc's resolver; in clear it would all be seen. Sockets that were handed are not: who counts on the fence alone does not start with any.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
mkdir "$LAB/web"
bg c web env -C "$LAB/web" /usr/bin/python3 -m http.server --bind 0.0.0.0 8080
wait_listen c 8080
cat >"$LAB/by-name.py" <<'EOF'
import ctypes, errno, socket, struct, sys
libc = ctypes.CDLL("libc.so.6", use_errno=True)
made = socket.socket()
place = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(sys.argv[3])), socket.inet_aton(sys.argv[2]))
print("connected" if libc.connect(made.fileno(), place, len(place)) == 0 else errno.errorcode[ctypes.get_errno()])
EOF
past() { # past WAY [OPTION]: what the probe says about c's port, which is nobody's with an SA
  local probe=(past-probe)
  [ "$1" != dlopen ] || probe=("${python[@]}" "$LAB/by-name.py")
  on a latchkey run ${2:+"$2"} -p "$LAB/out.toml" -- "${probe[@]}" "$1" 10.9.0.3 8080 2>"$LAB/said"
}
for way in raw uring dlopen; do
  expect_eq "$way" "$(past "$way")" EPERM
  expect_eq "$way: nothing is said" "$(cat "$LAB/said")" ""
done
expect_eq "nothing was sent" "$(packets wire 'host 10.9.0.3')" 0
check "it is on record" retry 5 grep -q 'refused: fenced -> 10.9.0.3:8080 (connect refused)' "$LAB/broker-a.log"
for way in raw uring dlopen; do
  expect_eq "$way, without the fence" "$(past "$way" --no-fence)" connected
done
check "it is said that there is none" grep -q 'not fenced: --no-fence' "$LAB/said"

handed() { # handed RUN-OPTION... -- PROGRAM...: started with a socket, descriptor 9, that was made outside of the fence
  on a "${python[@]}" -c 'import os, socket, sys
made = socket.socket()
os.dup2(made.fileno(), 9)
os.execvp("latchkey", ["latchkey", "run", *sys.argv[1:]])' "$@" 2>"$LAB/said"
}
sent() { packets wire 'host 10.9.0.3'; }
before=$(sent)
expect_eq "a static program with it" "$(handed -p "$LAB/out.toml" -- busybox echo ran; echo $?)" 126
check "is refused for that" grep -q 'statically linked.*; and 1 socket that it was handed is outside of the fence: descriptor 9' "$LAB/said"
probe=(-p "$LAB/out.toml" -- past-probe handed 10.9.0.3 8080)
expect_eq "so is any with --fence" "$(handed --fence "${probe[@]}"; echo $?)" 126
check "for that" grep -q '^latchkey: 1 socket that it was handed is outside of the fence: descriptor 9$' "$LAB/said"
expect_eq "nothing was sent" "$(sent)" "$before"
expect_eq "else the shim alone sees to it, and not to this" "$(handed "${probe[@]}")" connected
check "which is seen" [ "$(sent)" -gt "$before" ]

# Names: nobody answers at b; what counts is who is asked.
echo 'nameserver 10.9.0.2' >"$LAB/resolv.conf"
echo 'options timeout:1 attempts:1' >>"$LAB/resolv.conf"
on a mount --bind "$LAB/resolv.conf" /etc/resolv.conf || fail "no resolv.conf of our own"
printf 'hosts: dns\n' >"$LAB/nsswitch.conf"
on a mount --bind "$LAB/nsswitch.conf" /etc/nsswitch.conf || fail "no nsswitch.conf of our own"
policy_header "$LAB/closed.toml" discard
look_up() { # look_up POLICY: how many packets ask for the name
  local before
  before=$(packets wire 'port 53')
  on a latchkey run -p "$1" -- timeout 10 getent hosts www.example >/dev/null 2>&1
  echo $(($(packets wire 'port 53') - before))
}
expect_eq "nobody is asked for a name" "$(look_up "$LAB/closed.toml")" 0
check "that is on record" retry 5 grep -q 'refused: fenced -> 10.9.0.2:53 (packet dropped' "$LAB/broker-a.log"
on a latchkey check "$LAB/closed.toml" 2>"$LAB/said" >/dev/null || fail "check refuses it"
sed -n 's/.*: \(\[\[rule\]\]\) \(name = .*\)/\n\1\n\2/p' "$LAB/said" | sed 's/ \([a-z_]* = \)/\n\1/g' >>"$LAB/closed.toml"
check "check tells the rule" grep -q '^remote = \["10.9.0.2"\]$' "$LAB/closed.toml"
check "with it the server is asked" [ "$(look_up "$LAB/closed.toml")" -gt 0 ]
stop_pair
