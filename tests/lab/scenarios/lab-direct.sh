# The lab itself: on a kernel that has ESP it is made of that kernel's own namespaces. This lab's kernel has.
set -u

cat >/tmp/inner.sh <<'INNER'
set -u
capture wire
bg b server socat TCP6-LISTEN:5000,ipv6only=0,reuseaddr,fork EXEC:cat
wait_listen b 5000
for address in 10.9.0.2 '[fd00::2]'; do
  expect_eq "the echo in clear over $address" "$(printf canary-clear | on a socat -t5 - "TCP:$address:5000")" canary-clear
done
check "it is seen in clear" [ "$(clear_octets wire canary-clear)" -ge 4 ]
manual_sa a b 7 alice bob
for pair in 'a 10.9.0.1 10.9.0.2 b' 'a fd00::1 fd00::2 b'; do
  set -- $pair
  on "$1" ip xfrm policy add src "$2" dst "$3" dir out tmpl proto esp reqid 7 mode transport
  on "$1" ip xfrm policy add src "$3" dst "$2" dir in tmpl proto esp reqid 7 mode transport
  on "$4" ip xfrm policy add src "$3" dst "$2" dir out tmpl proto esp reqid 7 mode transport
  on "$4" ip xfrm policy add src "$2" dst "$3" dir in tmpl proto esp reqid 7 mode transport
done
for address in 10.9.0.2 '[fd00::2]'; do
  expect_eq "the echo over $address" "$(printf canary-esp | on a socat -t5 - "TCP:$address:5000")" canary-esp
done
expect_eq "it is not seen in clear" "$(clear_octets wire canary-esp)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 8 ]
check "a host writes where it likes" on c sh -c 'echo x >/etc/latchkey-lab-canary-direct'
echo "kernel of the inner lab: $(uname -r), its hosts: $(on a hostname) $(on b hostname) $(on c hostname)"
exit 7
INNER
status=0
env -i PATH="$PATH" HOME=/root LATCHKEY_LAB_BIN=/opt/latchkey-lab/bin tests/lab/exec /tmp/inner.sh >"$LAB/inner.log" 2>&1 || status=$?
sed 's/^/  inner: /' "$LAB/inner.log"
expect_eq "the inner lab's status" "$status" 7
expect_eq "its hosts" "$(sed -n 's/^kernel of the inner lab: .*, its hosts: //p' "$LAB/inner.log")" "a b c"
check "nothing of it is left" [ ! -e /etc/latchkey-lab-canary-direct ]
