# The lab itself: what a script and the functions may count on.
set -u

# --- hosts ---
for host in a b c; do
  expect_eq "the name of $host" "$(on $host cat /proc/sys/kernel/hostname)" $host
  for peer in a b c; do
    for family in ahostsv4 ahostsv6; do
      on $host getent $family $peer | grep -qE '^(10\.9\.0|fd00::)' || fail "$host cannot look up $peer ($family)"
    done
  done
  check "localhost on $host" on $host getent hosts localhost
  check "IPv4 loopback on $host" on $host sh -c 'ip -4 addr show dev lo | grep -q 127.0.0.1'
  expect_eq "no tentative address on $host" "$(on $host ip -6 addr show tentative)" ""
  expect_eq "nothing in the private folders of $host" "$(on $host ls /etc/latchkey /var/lib/latchkey)" "$(printf '/etc/latchkey:\n\n/var/lib/latchkey:')"
done
on a getent hosts nobody-knows.example && fail "a name was found outside"

# Each host has file systems of its own; $LAB is everyone's.
for dir in /etc/latchkey /run /var/lib/latchkey; do
  on a touch $dir/mine || fail "$dir is not writable"
  on b test ! -e $dir/mine || fail "$dir is shared"
  [ ! -e $dir/mine ] || fail "$dir is the script's too"
done
on a sh -c 'echo from-a >$LAB/shared'
expect_eq "\$LAB on b" "$(on b cat "$LAB/shared")" from-a
expect_eq "\$LAB in the script" "$(cat "$LAB/shared")" from-a
on a sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_fwmark_accept'
expect_eq "sysctls are per host" "$(on b cat /proc/sys/net/ipv4/tcp_fwmark_accept)" 0

# --- on ---
on a sh -c 'exit 42'
expect_eq "the status of on" $? 42
on a /no/such/program 2>/dev/null
expect_eq "the status of a missing program" $? 127
on d true 2>/dev/null
expect_eq "the status for a missing host" $? 125
expect_eq "standard input of on" "$(echo input | on b cat)" input
expect_eq "arguments of on" "$(on b printf '<%s>' 'a b' '' $'c\nd' '*')" $'<a b><><c\nd><*>'
cd /usr/share
expect_eq "the working directory of on" "$(on b pwd)" /usr/share
cd / || fail "cd"
EXPORTED=yes
export EXPORTED
expect_eq "the environment of on" "$(on b printenv EXPORTED)" yes

# --- bg, wait_listen ---
bg b server socat TCP-LISTEN:7001,fork EXEC:cat
wait_listen b 7001
bg b server6 socat TCP6-LISTEN:7002,ipv6only=1,fork EXEC:cat
wait_listen b 7002
expect_eq "the pid is the command's" "$(cat "/proc/$(cat "$LAB/server.pid")/comm")" socat
expect_eq "v4 by name" "$(echo hello | on a socat - TCP4:b:7001)" hello
expect_eq "v6 by name" "$(echo hello | on c socat - TCP6:b:7002)" hello
kill "$(cat "$LAB/server.pid")"
wait "$(cat "$LAB/server.pid")"
expect_eq "bg is a child of the script" $? 143
on a socat - TCP4:b:7001,connect-timeout=2 </dev/null 2>/dev/null && fail "the server lives on"
bg a words sh -c 'echo out; echo err >&2'
wait "$(cat "$LAB/words.pid")"
expect_eq "the log of bg" "$(cat "$LAB/words.log")" $'out\nerr'
SECONDS=0
said=$(wait_listen c 9)
expect_eq "wait_listen gives up" $? 1
expect_eq "and says so" "$said" "FAIL: wait_listen: nothing listens on c port 9 after 20 s"
[ $SECONDS -ge 19 ] && [ $SECONDS -le 25 ] || fail "wait_listen gave up after $SECONDS s"

# --- the functions are there in bash programs that the script starts ---
expect_eq "functions in a child" "$(bash -c 'on c cat /proc/sys/kernel/hostname')" c

# --- several links, one wire: c sees nothing of a and b, the capture everything ---
capture wire
expect_eq "a capture begins empty" "$(esp_packets wire a b) $(non_esp wire a b) $(clear_octets wire needle)" "0 0 0"
bg b udp socat -u UDP-RECV:7003 "CREATE:$LAB/received"
retry 5 on b sh -c 'ss -Hlun "sport = :7003" | grep -q .' || fail "no UDP server"
head -c 4000 /dev/zero | tr '\0' x | sed 's/$/needle/' | on a socat -u - UDP-SENDTO:b:7003
expect_eq "a fragment with the text is found" "$(clear_octets wire needle)" 1
[ "$(non_esp wire a b)" -ge 3 ] || fail "fragments are not counted"
expect_eq "nothing between a and c" "$(non_esp wire a c)" 0
capture_stop wire
expect_eq "text that is not there" "$(clear_octets wire haystack)" 0
said=$(clear_octets never needle 2>/dev/null) && fail "a capture that does not exist was counted"
expect_eq "no number for it" "$said" ""
