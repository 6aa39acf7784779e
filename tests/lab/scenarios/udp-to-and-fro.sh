# A UDP socket that is connected to and fro between a peer that is to be protected and one that may be reached in clear, while other processes send by it: nothing for the first is ever in clear. No fence stands behind it.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_out "$LAB/out.toml" 9000 bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/out.toml"
for action in bypass protect-or-bypass; do
  cat "$LAB/out.toml" >"$LAB/$action.toml"
  printf '[[rule]]\nname = "perhaps"\ndirection = "out"\nprotocol = "udp"\nremote_port = [9001]\naction = "%s"\n' "$action" >>"$LAB/$action.toml"
done
printf 'protection = "strong"\npeer = "them"\n' >>"$LAB/protect-or-bypass.toml"
manual_sa a b 7 alice bob
start_broker a
for family in 4 6 mapped; do
  to=10.9.0.2 other=10.9.0.3 as=
  [ $family != 6 ] || to=fd00::2 other=fd00::3
  [ $family != mapped ] || as=::ffff:
  for action in bypass protect-or-bypass; do
    name=$action$family
    sock b "peer-$name" "udp-bind $to 9000"
    sock c "other-$name" "udp-bind $other 9001"
    expect "peer-$name" ok
    expect "other-$name" ok
    tcpdump -i wire -n -U --immediate-mode -B 131072 -s 96 -Z root -w "$LAB/$name.pcap" "dst host $to and (udp or esp or ip6 proto 50)" 2>"$LAB/$name.dump" &
    retry 10 grep -q listening "$LAB/$name.dump" || fail "no capture"
    on a latchkey run --no-fence -p "$LAB/$action.toml" -- "${python[@]}" "$programs/connects.py" 3 "$as$to" 9000 "$as$other" 9001 >"$LAB/said" 2>&1 || fail "$(cat "$LAB/said")"
    cat "$LAB/said"
    grep -qE '^[0-9]{2,} times, 0 failed$' "$LAB/said" || fail "$name: $(cat "$LAB/said")"
    sleep 0.5
    kill $! && wait $!
    expect_eq "$name: in clear" "$(tcpdump -n -r "$LAB/$name.pcap" udp 2>/dev/null | wc -l)" 0
    check "$name: under ESP" [ "$(tcpdump -n -r "$LAB/$name.pcap" 'esp or ip6 proto 50' 2>/dev/null | wc -l)" -gt 20 ]
    check "$name: what goes in clear came" [ "$(on c ss -Hlun 'sport = :9001' | awk '{ print $2 }')" -gt 0 ]
    end "peer-$name"
    end "other-$name"
  done
done
