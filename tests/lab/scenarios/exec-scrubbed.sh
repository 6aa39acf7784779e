# Programs that a latched one starts with an environment of their own are latched too, but for those of drop_preload;
# deny_io_uring reaches them all.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
mkdir "$LAB/web"
chmod 755 "$LAB" "$LAB/web"
echo canary-scrubbed >"$LAB/web/page"
cd "$LAB/web" || fail cd
bg b web latchkey run -p "$LAB/in.toml" -- env -i /usr/bin/python3 -m http.server --bind 0.0.0.0 8080
wait_listen b 8080
echo canary-plain >"$LAB/page"
bg c plain env -C "$LAB" /usr/bin/python3 -m http.server --bind 0.0.0.0 8080
wait_listen c 8080

options=()
get() { # get POLICY HOST COMMAND...: what curl gets, started by the command
  local policy=$1 host=$2
  shift 2
  on a latchkey run "${options[@]}" -p "$policy" -- "$@" /usr/bin/curl -sS --max-time 10 "http://$host:8080/page" 2>"$LAB/said"
}
spawn='import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], {})
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))'
subprocess='import subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], env={"PATH": "/usr/bin"}).returncode)'
expect_eq "by env -i" "$(get "$LAB/out.toml" 10.9.0.2 env -i)" canary-scrubbed
expect_eq "by env -i, twice" "$(get "$LAB/out.toml" 10.9.0.2 env -i /usr/bin/env -i)" canary-scrubbed
# shellcheck disable=SC2016
expect_eq "by a shell and exec -c" "$(get "$LAB/out.toml" 10.9.0.2 bash -c 'exec -c "$0" "$@"')" canary-scrubbed
expect_eq "by posix_spawn" "$(get "$LAB/out.toml" 10.9.0.2 "${python[@]}" -c "$spawn")" canary-scrubbed
expect_eq "by vfork and execve" "$(get "$LAB/out.toml" 10.9.0.2 /usr/bin/python3 -c "$subprocess")" canary-scrubbed
wire_protected wire a b canary-scrubbed
# Who is not latched gets something from c, who has no SA.
expect_eq "env -i gets nothing in clear" "$(get "$LAB/out.toml" 10.9.0.3 env -i)" ""
expect_eq "nothing between a and c" "$(clear_octets wire canary-plain)" 0
printf '\n[process]\ndeny_io_uring = true\ndrop_preload = ["/usr/bin/curl"]\n' | cat "$LAB/out.toml" - >"$LAB/drop.toml"
expect_eq "curl may drop it: the fence is left" "$(get "$LAB/drop.toml" 10.9.0.3 env -i)" ""
expect_eq "nothing between a and c then" "$(clear_octets wire canary-plain)" 0
options=(--no-fence)
expect_eq "curl may drop it, and no fence" "$(get "$LAB/drop.toml" 10.9.0.3 env -i)" canary-plain
check "and is in clear then" [ "$(clear_octets wire canary-plain)" -ge 1 ]
options=()
expect_eq "it need not" "$(get "$LAB/drop.toml" 10.9.0.2 env)" canary-scrubbed
expect_eq "others may not" "$(get "$LAB/drop.toml" 10.9.0.2 env -i "$(readlink -f /usr/bin/python3)" -c "$subprocess" env)" canary-scrubbed
wire_protected wire a b canary-scrubbed

io_uring='import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 0, None)
print(ctypes.get_errno())'
uring() { # uring POLICY: the errno of a child's io_uring_setup
  on a latchkey run -p "$1" -- env -i /usr/bin/python3 -c "$io_uring"
}
expect_eq "io_uring as it was" "$(uring "$LAB/out.toml")" "$(on a /usr/bin/python3 -c "$io_uring")"
expect_eq "io_uring denied" "$(uring "$LAB/drop.toml")" 38
end plain
end web
stop_pair
