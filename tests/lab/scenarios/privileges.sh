# Every cell of the privilege table, on the wire: who may ask for less than the system, and who may not.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

manual_sa a b 7 alice bob
manual_sa a c 9 alice carol aes-gcm-8:128
ab="10.9.0.1 10.9.0.2" ba="10.9.0.2 10.9.0.1" ca="10.9.0.3 10.9.0.1"
# What the system asks at a: nothing for 8080 and 8085, ESP for 8081 and 8082, nothing passes to 8083
# and 8086; 8084 has a floor in system.toml. b takes 8080, 8082 and 8086 in clear, the rest under ESP.
spd_port a "$ab" 8081 theirs esp 7
spd_port a "$ab" 8082 theirs esp 7
spd_port a "$ab" 8083 theirs block
spd_port a "$ab" 8086 theirs block
for port in 8081 8083 8084 8085; do spd_port b "$ba" $port ours esp 7; done
spd_port c "$ca" 8084 ours esp 9
cat >"$LAB/system.toml" <<'END'
latchkey = 1
suites = [["aes-gcm-16:256", "chacha20-poly1305"], ["aes-gcm-16:128"]]
[protection.floor]
encryption = ["aes-gcm-16"]
min_key_bits = 256
[[rule]]
name = "floor"
direction = "out"
remote_port = [8084]
action = "protect"
protection = "floor"
[[grant]]
user = "1001"
grants = ["bypass"]
[[grant]]
user = "1002"
grants = ["weaken"]
[[grant]]
user = "1003"
grants = ["override-discard"]
[[grant]]
user = "1004"
grants = ["override-discard", "bypass"]
END
on a mkdir -p /etc/latchkey
on a cp "$LAB/system.toml" /etc/latchkey/system.toml
policy() { # policy NAME RULE-LINES
  printf 'latchkey = 1\napplication = "%s"\n%b' "$1" "${2:-}" >"$LAB/$1.toml"
}
policy system
policy bypass '[[rule]]\naction = "bypass"\n'
policy discard '[[rule]]\naction = "discard"\n'
policy protect '[[rule]]\naction = "protect"\n'
policy weaker '[protection.w]\nencryption = ["aes-gcm-8"]\n[[rule]]\naction = "protect"\nprotection = "w"\n'
policy ah '[protection.w]\nprotocol = "ah"\n[[rule]]\naction = "protect"\nprotection = "w"\n'
start_broker a
capture wire
for port in 8080 8081 8082 8083 8084 8085 8086; do
  sock b "srv$port" "listen :: $port" serve
  wait_listen b $port
done
sock c srvc 'listen :: 8084' serve
wait_listen c 8084

number=0
# cell UID POLICY ADDRESS PORT clear|esp|REFUSAL-ERRNO [REASON]
cell() {
  local what="uid $1, $2, port $4" text="cell-$((++number))-$RANDOM" said
  said=$(as a "$1" "$LAB/$2.toml" 'timeout 5' "connect $3 $4" "echo $text" 2>&1)
  case $5 in
    clear | esp)
      grep -q "^= echo: $text\$" <<<"$said" || fail "$what: $said"
      if [ "$5" = clear ]; then
        check "$what: in clear" [ "$(clear_octets wire "$text")" -ge 2 ]
      else
        expect_eq "$what: nothing in clear" "$(clear_octets wire "$text")" 0
      fi
      ;;
    *)
      expect_eq "$what" "$(grep '^= connect' <<<"$said")" "= connect: $5"
      retry 5 grep -q "refused: $6 .*:$4 " "$LAB/broker-a.log" || fail "$what: no $6 in the log"
      ;;
  esac
}
b=10.9.0.2 c=10.9.0.3
# The system asks nothing.
cell 1000 bypass $b 8080 clear
cell 1000 system $b 8080 clear
cell 1000 protect $b 8085 esp
cell 1000 discard $b 8080 EACCES policy-discard
# It asks for ESP: an unprivileged program gets that, or more, or nothing.
cell 1000 system $b 8081 esp
cell 1000 protect $b 8081 esp
cell 1000 bypass $b 8082 EACCES unprivileged-bypass
cell 1000 ah $b 8081 EACCES unprivileged-weaken
cell 1002 bypass $b 8082 EACCES unprivileged-bypass
cell 1003 bypass $b 8082 EACCES unprivileged-bypass
cell 1001 bypass $b 8082 clear
cell 1001 ah $b 8081 EACCES unprivileged-weaken
# The same by system.toml, down to the algorithms.
cell 1000 protect $b 8084 esp
cell 1000 system $b 8084 esp
cell 1000 bypass $b 8084 EACCES unprivileged-bypass
# By datagrams without a connection, too, of either family's socket; to other ports they go.
for from in 0.0.0.0 ::; do
  to=10.9.0.2
  [ $from = 0.0.0.0 ] || to=::ffff:10.9.0.2
  expect_eq "a datagram from $from" "$(as a 1000 "$LAB/bypass.toml" "udp-bind $from 9000" \
    "sendto $to 8084 never-datagram" "sendto $to 9 clear-datagram" 2>&1 | grep '^= sendto' | tr '\n' ' ')" "= sendto: EACCES = sendto: ok "
done
expect_eq "nothing of it leaves" "$(clear_octets wire never-datagram)" 0
check "the others do" [ "$(clear_octets wire clear-datagram)" -ge 2 ]
cell 1000 weaker $c 8084 EACCES unprivileged-weaken
cell 1001 weaker $c 8084 EACCES unprivileged-weaken
cell 1000 protect $c 8084 EPROTO weak-protection
cell 1002 weaker $c 8084 esp
cell 1002 protect $c 8084 esp
# Nothing passes.
cell 1000 system $b 8083 EACCES policy-discard
cell 1000 protect $b 8083 EACCES policy-discard
cell 1002 protect $b 8083 EACCES policy-discard
cell 1003 protect $b 8083 esp
cell 1003 bypass $b 8086 EACCES policy-discard
cell 1001 bypass $b 8086 EACCES policy-discard
cell 1004 bypass $b 8086 clear
cell 0 bypass $b 8086 clear
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
# The same where the peer connects: b's own system asks for ESP from a at 8091, and takes nothing at 8092.
spd_port b "$ba" 8091 ours esp 7
spd_port b "$ba" 8092 ours block
on b mkdir -p /etc/latchkey
on a cat /etc/latchkey/system.toml | on b tee /etc/latchkey/system.toml >/dev/null
start_broker b
# taken UID POLICY PORT clear|no
taken() {
  local what="uid $1 listens, $2, port $3" text="taken-$((++number))-$RANDOM" name="in-$1-$3"
  _answers[$name]=0
  rm -f "$LAB/$name.in"
  mkfifo -m 666 "$LAB/$name.in"
  bg b "$name" setpriv --reuid="$1" --regid="$1" --clear-groups latchkey run -p "$LAB/$2.toml" -- \
    "${python[@]}" "$programs/sock.py" -i "$LAB/$name.in" "listen 10.9.0.2 $3" serve
  wait_listen b "$3"
  if [ "$4" = clear ]; then
    expect_eq "$what" "$(once c 'timeout 3' "connect 10.9.0.2 $3" "echo $text" | tail -n 1)" "= echo: $text"
    expect_eq "$what: a too" "$(once a 'timeout 3' "connect 10.9.0.2 $3" "echo $text" | tail -n 1)" "= echo: $text"
    check "$what: in clear" [ "$(clear_octets wire "$text")" -ge 4 ]
  else
    expect_eq "$what" "$(once a 'timeout 1.5' "connect 10.9.0.2 $3" | tail -n 1)" "= connect: timeout"
  fi
  end "$name"
}
taken 1000 bypass 8091 no
taken 1001 bypass 8091 clear
want_logged b "the log of b says CLEAR" 'new -> ESTABLISHED: none tcp .*CLEAR'
taken 1001 bypass 8092 no
taken 1004 bypass 8092 clear
# What goes in clear against the system is never silent.
bg a held setpriv --reuid=1001 --regid=1001 --clear-groups latchkey run -p "$LAB/bypass.toml" -- \
  "${python[@]}" "$programs/sock.py" 'connect 10.9.0.2 8082' 'sleep 20'
retry 10 grep -q '^= connect: ok' "$LAB/held.log" || fail "no connection: $(cat "$LAB/held.log")"
check "list says CLEAR" grep -q ' CLEAR ' <(on a latchkey list)
want_logged a "and so does the log" 'new -> ESTABLISHED: none tcp .*:8082 CLEAR'
end held
