# A static program cannot be latched: fenced, it runs, and is said to be so; without a fence it is refused, with 126 and one
# line that says why, before it runs.
needs=busybox
alone() {
  local policy
  if [ "$(on a busybox echo bare)" != bare ]; then
    echo 'FAIL busybox: does not work bare'
    return
  fi
  for policy in bypass out; do
    on a latchkey run --no-fence -p "$LAB/$policy.toml" -- busybox touch "$LAB/busybox-ran" >"$LAB/busybox" 2>&1
    if [ $? != 126 ] || [ -e "$LAB/busybox-ran" ] || ! grep -qi 'static' "$LAB/busybox" ||
      [ "$(wc -l <"$LAB/busybox")" != 1 ]; then
      echo "FAIL busybox: not refused with 126 and one line under $policy.toml without a fence"
      sed 's/^/  | /' "$LAB/busybox"
      return
    fi
    if ! on a latchkey run -p "$LAB/$policy.toml" -- busybox touch "$LAB/busybox-ran" >"$LAB/busybox" 2>&1 ||
      ! rm "$LAB/busybox-ran" || ! grep -q ': fenced, not latched$' "$LAB/busybox" || [ "$(wc -l <"$LAB/busybox")" != 1 ]; then
      echo "FAIL busybox: does not run fenced under $policy.toml"
      sed 's/^/  | /' "$LAB/busybox"
      return
    fi
  done
  echo 'ok busybox'
}
