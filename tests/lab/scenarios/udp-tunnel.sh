# Connected UDP in tunnel mode: what is inside is latched to the tunnel's peer, and a fragment in clear does not complete what came out of the tunnel; natively it does.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

inner a 1
inner b 2
for host in a b; do
  on $host iptables-legacy -t raw -A PREROUTING -f -p udp -m policy --dir in --pol none -j DROP || fail "nothing drops fragments at $host"
done
for line in '10.9.0.1 10.9.0.2 1 2 0x7001' '10.9.0.2 10.9.0.1 2 1 0x7002'; do
  read -r src dst from to spi <<<"$line"
  for host in a b; do
    ip -n $host xfrm state add src "$src" dst "$dst" proto esp spi "$spi" reqid 7 mode tunnel replay-window 32 \
      aead 'rfc4106(gcm(aes))' "0x$(printf %072d "${spi#0x}")" 128 sel src "192.168.$from.1" dst "192.168.$to.1" || fail "no tunnel at $host"
  done
done
for way in 'a 10.9.0.2 bob alice' 'b 10.9.0.1 alice bob'; do
  read -r host remote peer own <<<"$way"
  printf '[[sa]]\nreqid = 7\nremote = ["%s"]\nid = "%s"\nlocal_id = "%s"\n' "$remote" "$peer" "$own" | on "$host" tee /etc/latchkey/pad.toml >/dev/null
done
policy_out "$LAB/out.toml" '"8080-8089"' bob
sed -i 's/protocol = "tcp"/protocol = "udp"/; s/^\[protection.strong\]/&\nmode = "tunnel"/' "$LAB/out.toml"
ip -n b xfrm policy add src 192.168.2.1 dst 192.168.1.1 dir out tmpl src 10.9.0.2 dst 10.9.0.1 proto esp reqid 7 mode tunnel &&
  ip -n b xfrm policy add src 192.168.1.1 dst 192.168.2.1 dir in tmpl src 10.9.0.1 dst 10.9.0.2 proto esp reqid 7 mode tunnel || fail "no policies"
start_broker a
capture wire
sock b srv 'udp-bind 192.168.2.1 8080'
expect srv ok
latched a cli "$LAB/out.toml" 'udp 192.168.2.1 8080 9100' 'timeout 3'
expect cli ok
expect cli ok
want_latches a 1 'ESTABLISHED 9100 192\.168\.2\.1 bob alice tunnel aes-gcm-16:256 -'
round() {
  want cli "send $1" ok
  want srv udp-answer "$1"
  want cli recv "$1"
}
round canary-inside
want cli 'send-of 3000' ok
want srv recv-size '3002 <>'

# halves PORT ID ORDER: a datagram of two pieces, the first by the tunnel, the second in clear, in that order or the other.
link() { "${python[@]}" "$programs/wire.py" "$@" || fail "wire.py $*"; }
inside() { on b "${python[@]}" "$programs/wire.py" "$@" || fail "wire.py $*"; }
halves() {
  local first=(inside fragment raw 192.168.2.1 192.168.1.1 8080 "$1" "$2" first) second=(link fragment 10.9.0.2 192.168.2.1 192.168.1.1 8080 "$1" "$2" second)
  if [ "$3" = tunnel-first ]; then "${first[@]}" && "${second[@]}"; else "${second[@]}" && "${first[@]}"; fi
}
number=100
for order in tunnel-first clear-first; do
  number=$((number + 1))
  halves 9100 $number $order
done
round canary-afterwards # what had come before it would be read first
# Two of the tunnel make one; and without that rule, which is what keeps it so, one in clear completes it.
inside fragment raw 192.168.2.1 192.168.1.1 8080 9100 200 first
inside fragment raw 192.168.2.1 192.168.1.1 8080 9100 200 second
want cli recv-size '1000 <>'
on a iptables-legacy -t raw -F PREROUTING
halves 9100 300 tunnel-first
want cli recv-size '1000 <>'
expect_eq "nothing of the tunnel's in clear" "$(clear_octets wire canary-)" 0
