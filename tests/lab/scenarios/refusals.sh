# Programs that the shim cannot reach are refused with 126 and one line that says why; 127 for what is not there.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
start_broker a
mkdir "$LAB/bin"
cp /bin/cat "$LAB/bin/setuid" && chmod 4755 "$LAB/bin/setuid"
cp /bin/cat "$LAB/bin/setgid" && chown 0:65534 "$LAB/bin/setgid" && chmod 2755 "$LAB/bin/setgid"
cp /sbin/ldconfig "$LAB/bin/static"
printf '#!%s/bin/static\n' "$LAB" >"$LAB/bin/script" && chmod 755 "$LAB/bin/script"
echo data >"$LAB/bin/data" && chmod 644 "$LAB/bin/data"
refused() { # refused STATUS PATTERN PROGRAM [OPTION]
  on a latchkey run ${4:+"$4"} -p "$LAB/out.toml" -- "$3" >"$LAB/said" 2>&1
  expect_eq "$3: status" $? "$1"
  expect_eq "$3: lines" "$(wc -l <"$LAB/said")" 1
  grep -qiE "^latchkey: .*$2" "$LAB/said" || fail "$3: it says $(cat "$LAB/said")"
}
refused 126 'set-user-ID' "$LAB/bin/setuid"
refused 126 'set-group-ID' "$LAB/bin/setgid"
refused 126 'static' "$LAB/bin/static" --no-fence
refused 126 'static' "$LAB/bin/script" --no-fence
refused 126 'Permission denied' "$LAB/bin/data"
refused 127 'No such file' "$LAB/bin/none"
refused 127 'no such program' no-such-program
cp /bin/cat "$LAB/bin/capable"
setcap cap_net_raw+ep "$LAB/bin/capable" || fail "no file capabilities here"
refused 126 'file capabilities' "$LAB/bin/capable"
# The control: the same program without any of that runs.
cp /bin/cat "$LAB/bin/plain"
expect_eq "a plain one runs" "$(echo through | on a latchkey run -p "$LAB/out.toml" -- "$LAB/bin/plain")" through
