# The lab itself: what goes through ESP is seen as ESP, and what does not is seen in clear.
set -u

port_now=5000
send() { # send CLIENT-HOST SERVER-HOST ADDRESS TEXT: over TCP, and back
  local port=$((port_now += 1))
  bg "$2" "server-$port" socat "TCP6-LISTEN:$port,ipv6only=0,reuseaddr" EXEC:cat
  wait_listen "$2" "$port"
  expect_eq "the echo of $4 over $3" "$(printf %s "$4" | on "$1" socat -t5 - "TCP:$3:$port,connect-timeout=5")" "$4"
}

# Without any policy the canary must be seen: else "not seen" below would mean nothing.
capture before
send a b 10.9.0.2 canary-in-clear-4
send a b '[fd00::2]' canary-in-clear-6
clear4=$(clear_octets before canary-in-clear-4)
clear6=$(clear_octets before canary-in-clear-6)
check "the canary is seen in clear over v4" [ "$clear4" -ge 2 ]
check "the canary is seen in clear over v6" [ "$clear6" -ge 2 ]
check "packets in clear are counted" [ "$(non_esp before a b)" -gt 0 ]
expect_eq "no ESP yet" "$(esp_packets before a b)" 0
capture_stop before
expect_eq "the count stays after the end" "$(clear_octets before canary-in-clear-4)" "$clear4"

policies() { # policies HOST PEER-NUMBER NUMBER REQID: everything between the two by ESP
  local peer mine dir
  for family in 10.9.0. fd00::; do
    mine=$family$3 peer=$family$2
    for dir in in out; do
      if [ $dir = out ]; then set -- "$1" "$2" "$3" "$4" "$mine" "$peer"; else set -- "$1" "$2" "$3" "$4" "$peer" "$mine"; fi
      on "$1" ip xfrm policy add src "$5" dst "$6" proto tcp dir $dir priority 10 \
        tmpl proto esp reqid "$4" mode transport || fail "no policy on $1"
    done
  done
}

reqid=100
for suite in aes-gcm-16:256 aes-gcm-16:128 chacha20-poly1305 aes-cbc:256/hmac-sha2-256; do
  reqid=$((reqid + 1))
  for host in a b; do on $host ip xfrm policy flush; done
  policies a 2 1 $reqid
  policies b 1 2 $reqid
  manual_sa a b $reqid alice bob $suite
  capture with
  send a b 10.9.0.2 "canary-by-esp-4-$suite"
  send b a '[fd00::1]' "canary-by-esp-6-$suite"
  expect_eq "nothing in clear with $suite" "$(clear_octets with canary-by-esp)" 0
  expect_eq "nothing but ESP with $suite" "$(non_esp with a b)" 0
  check "ESP is seen with $suite" [ "$(esp_packets with a b)" -ge 10 ]
  expect_eq "no ESP between a and c" "$(esp_packets with a c)" 0
  capture_stop with
  expect_eq "the SPIs are listed" "$(wc -l <"$LAB/sa.$reqid")" 4
  sa_delete a b $reqid || fail "sa_delete"
  expect_eq "the SAs are gone" "$(on a ip xfrm state)$(on b ip xfrm state)" ""
done

# The PAD entries name the other end on each side; two reqids between the same hosts go together.
manual_sa a b 7 alice bob
manual_sa a b 9 mallory bob aes-gcm-16:128
manual_sa c b 7
expect_eq "the PAD of b" "$(on b grep -c '^\[\[sa\]\]' /etc/latchkey/pad.toml)" 7
check "a is told bob" on a grep -qx 'id = "bob"' /etc/latchkey/pad.toml
check "b is told mallory" on b grep -qx 'id = "mallory"' /etc/latchkey/pad.toml
check "b is told c" on b grep -qx 'remote = \["10.9.0.3", "fd00::3"\]' /etc/latchkey/pad.toml
expect_eq "SAs on b" "$(on b ip xfrm state | grep -c 'proto esp')" 12
sa_delete a b 7 || fail "sa_delete"
expect_eq "SAs on b, two pairs left" "$(on b ip xfrm state | grep -c 'proto esp')" 8
expect_eq "SAs on c untouched" "$(on c ip xfrm state | grep -c 'reqid 7')" 4
