# shellcheck shell=bash
# What scenarios with strongSwan share; sources product.sh. The ends are a.lab at a and b.lab at b.
# shellcheck source=product.sh
. "${BASH_SOURCE[0]%/*}/product.sh"

# key_policies [EXTRA]: $LAB/in.toml and $LAB/out.toml as pair_policies, for strongSwan's names; EXTRA
# lines go into the rule.
key_policies() {
  policy_in "$LAB/in.toml" '"8080-8089"' a.lab
  policy_out "$LAB/out.toml" '"8080-8089"' b.lab
  [ $# = 0 ] || printf '%s\n' "$@" | tee -a "$LAB/in.toml" >>"$LAB/out.toml"
}

# pins PIN: both policies' protection is pinned so.
pins() {
  sed -i "s/^\[protection.strong\]/&\npin = \"$1\"/" "$LAB/in.toml" "$LAB/out.toml"
}

# start_key_pair: charon on a and b, idle; policies; brokers on both.
start_key_pair() {
  [ -e "$LAB/in.toml" ] || key_policies
  ike a b
  start_broker a
  start_broker b
}

# behind_nat: b and c reach a by the wire itself, which gives them its own address, 10.9.0.254.
behind_nat() {
  local host
  ip address add 10.9.0.254/24 dev wire
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 0 | tee /proc/sys/net/ipv4/conf/{all,wire}/send_redirects >/dev/null
  for host in b c; do ip -n $host route add 10.9.0.1/32 via 10.9.0.254; done
  iptables-legacy -t nat -A POSTROUTING -s 10.9.0.2/31 -d 10.9.0.1 -j SNAT --to-source 10.9.0.254 || fail "no NAT"
}

# field HOST PATTERN NAME: of the first latch of `latchkey list --json` whose line of `latches` matches.
field() {
  on "$1" latchkey list --json | "${python[@]}" -c '
import json, re, sys
for latch in json.load(sys.stdin)["latches"]:
    protection = latch["protection"] or {}
    line = " ".join(str(x) for x in (latch["state"], (latch["local"] or {}).get("port"), latch["peer_id"]))
    if re.search(sys.argv[1], line):
        value = latch
        for part in sys.argv[2].split("."):
            value = value[part] if value is not None else None
        print(value)
        break' "$2" "$3"
}

# want_field HOST PATTERN NAME VALUE
want_field() {
  expect_eq "$1: $3 of \"$2\"" "$(field "$1" "$2" "$3")" "$4"
}

# wait_state HOST PATTERN SECONDS: until a line of `latches` matches.
wait_state() {
  retry "$3" _shows_some "$1" "$2" || fail "$1 does not show \"$2\" in $3 s: $(latches "$1")"
  echo "good: $1 shows \"$2\""
}
_shows_some() { latches "$1" | grep -qE "^($2)\$"; }

# trickles NAME, trickled NAME: blocks go there and back from the one to the other, each compared; the
# longest wait for one is then in REPLY, in ms, and in RATE the octets each way in a ms of waiting.
trickles() {
  rm -f "$LAB/stop"
  tell "$1" "trickle $LAB/stop 20000"
}
trickled() {
  touch "$LAB/stop"
  answer "$1" 60
  [[ $REPLY =~ ([0-9]+)\ of\ ([0-9]+)\ whole,\ longest\ ([0-9]+)\ ms,\ ([0-9]+)\ octets ]] || fail "$1 did not go on: $REPLY"
  expect_eq "$1: blocks that came back as they went" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
  REPLY=${BASH_REMATCH[3]} RATE=${BASH_REMATCH[4]}
}

# is_up HOST CHILD: it is, whoever has initiated it: brokers do too, for latches that lost their SAs.
is_up() { ike_up "$1" "$2" || ike_sas "$1" | grep -q "^$2 .* INSTALLED"; }

# under SPI CAPTURE: the packets with data (of 300 octets or more) under this SPI, as tcpdump prints them.
under() {
  clear_octets "$2" none >/dev/null # what was sent until now is in the file
  tcpdump -n -tt -r "$LAB/$2.pcap" "ip proto 50 and ip[20:4] = 0x$1 and greater 300" 2>/dev/null
}

# spi_out HOST ID: the SPI of what HOST sends to the peer of this identity.
spi_out() { ike_sas "$1" | awk -v id="$2" '$5 == id { print $7; exit }'; }

# inner HOST N: 192.168.N.1 is at HOST, for what a tunnel carries; nothing in clear passes for a fragment of it, kernel or not.
inner() {
  ip -n "$1" address add "192.168.$2.1/32" dev lo && ip -n "$1" route add 192.168.0.0/16 dev eth0 src "192.168.$2.1" || fail "no 192.168.$2.1 at $1"
  on "$1" iptables-legacy -t raw -A PREROUTING -f -p tcp -m policy --dir in --pol none -j DROP &&
    printf 'latchkey = 1\nclear_fragments = "dropped"\n' | on "$1" tee /etc/latchkey/system.toml >/dev/null || fail "nothing drops fragments at $1"
}

# tunnelled: both policies ask for tunnel mode.
tunnelled() {
  sed -i 's/^\[protection.strong\]/&\nmode = "tunnel"/' "$LAB/in.toml" "$LAB/out.toml"
}
