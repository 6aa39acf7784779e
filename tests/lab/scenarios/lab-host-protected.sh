# The lab itself: a script may write where it likes, and the machine it runs on does not change.
# selftest.sh looks from outside whether that is so; here: the writes work and are seen.
set -u

for dir in /etc /usr /usr/local/bin /root /tmp /var/lib /opt /dev/shm "${LATCHKEY_LAB_CANARY_DIR:-/var/tmp}"; do
  file=$dir/latchkey-lab-canary
  [ ! -e "$file" ] || fail "$file is on the host"
  echo written >"$file" || fail "cannot write to $dir"
  expect_eq "$file" "$(cat "$file")" written
  expect_eq "$file on host a" "$(on a cat "$file")" written
done
echo '# latchkey-lab-canary' >>/etc/passwd || fail "cannot change /etc/passwd"
rm -rf /usr/share/doc || fail "cannot remove /usr/share/doc"
[ ! -e /usr/share/doc ] || fail "/usr/share/doc is still there"
mv /etc/hostname /etc/hostname.moved 2>/dev/null
on b sh -c 'echo written >/etc/latchkey-lab-canary-b' || fail "host b cannot write to /etc"
expect_eq "what b wrote" "$(cat /etc/latchkey-lab-canary-b)" written

# Nothing but the wire leads anywhere.
for host in a b c; do
  expect_eq "no default route on $host" "$(on $host ip route show default; on $host ip -6 route show default)" ""
done
expect_eq "the clock" "$(($(date +%s) / 1000000 > 1700))" 1
