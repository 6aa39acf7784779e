# Where a device keeps the SPD out (disable_xfrm, disable_policy) nothing is latched that leans on it; what was breaks within a second, no-xfrm names the setting, and without it all goes on.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

pair_policies
for way in in out; do sed 's/protocol = "tcp"/protocol = "udp"/' "$LAB/$way.toml" >"$LAB/udp-$way.toml"; done
manual_sa a b 7 alice bob
# What is sent in clear would be seen: no fence stands behind the shim.
bare() { # bare HOST NAME POLICY [COMMAND...]
  local host=$1 name=$2 _under="latchkey run --no-fence -p $3 --"
  shift 3
  sock "$host" "$name" "$@"
}
setting() { # setting HOST FAMILY DEVICE.NAME VALUE: when its broker, if it runs, has seen it
  mark "$1"
  on "$1" sysctl -qw "net.$2.conf.$3=$4" || fail "no setting $3"
}
keeps_out() { # keeps_out HOST FAMILY DEVICE.NAME
  setting "$1" "$2" "$3" 1
  want_logged "$1" "$3 is noticed" "warning: net\\.$2\\.conf\\.$3 must be 0: "
}
says() { # says WHAT PATTERN COMMAND...: on a
  local what=$1 pattern=$2
  shift 2
  on a "$@" >"$LAB/said"
  grep -qE "$pattern" "$LAB/said" || fail "$what: $(cat "$LAB/said")"
  echo "good: $what"
}
clear() { clear_octets wire "$1"; }
refused_by() { expect_eq "$1" "$(on a latchkey why | head -n 1 | grep -c 'refused no-xfrm .*net\.ipv4\.conf\.eth0\.disable_xfrm must be 0')" 1; }

# It was so before the broker came: b has one, and hears who comes protected.
start_broker b
capture wire
latched b heard "$LAB/udp-in.toml" 'udp-bind 0.0.0.0 8080'
expect heard ok
latched b heard6 "$LAB/udp-in.toml" 'udp-bind fd00::2 8083'
expect heard6 ok
serve b srv "$LAB/in.toml" :: 8080
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp dport 8089 dir out tmpl proto esp reqid 7 mode transport || fail "no policy"
on a sysctl -qw net.ipv4.conf.eth0.disable_xfrm=1 || fail "no such setting"
once a 'udp-send 10.9.0.2 8089 control-out' >/dev/null
check "the SPD is not asked" [ "$(clear control-out)" -ge 1 ] # an ICMP error quotes it
ip -n a xfrm policy delete src 10.9.0.1 dst 10.9.0.2 proto udp dport 8089 dir out || fail "it stays"
start_broker a
want_logged a "it is said at the start" 'warning: net\.ipv4\.conf\.eth0\.disable_xfrm must be 0: '
says "doctor says which device" '^BAD +device eth0: .*\(disable_xfrm\).*: set net\.ipv4\.conf\.eth0\.disable_xfrm to 0$' latchkey doctor
bare a tcp "$LAB/out.toml" 'connect 10.9.0.2 8080'
expect tcp EPROTO
refused_by "why: connect"
want tcp 'nconnect 10.9.0.2 8080' EPROTO
expect_eq "listen" "$(once_latched a "$LAB/in.toml" 'listen 0.0.0.0 8081')" "= listen: EPROTO"
refused_by "why: listen"
bare a con "$LAB/udp-out.toml" 'udp 10.9.0.2 8080 9300'
expect con EPROTO
refused_by "why: connected UDP"
bare a held "$LAB/udp-out.toml" 'udp-new 10.9.0.2' 'sendto 10.9.0.2 8080 canary-before'
expect held ok
expect held EPROTO
want held 'sendto_past 10.9.0.2 8080 canary-before' EPERM
refused_by "why: the first datagram"
want_latches a 0 '.*'
# By IPv6 the SPD is always asked.
bare a six "$LAB/out.toml" 'connect fd00::2 8080' 'echo canary-six'
expect six ok
expect six canary-six
end six

# Without it all of them can be used, the same sockets too.
setting a ipv4 eth0.disable_xfrm 0
want_logged a "that is noticed, too" 'the SPD is asked again'
want held 'sendto 10.9.0.2 8080 canary-one' ok
want heard recvfrom 'canary-one 10.9.0.1'
want tcp 'connect 10.9.0.2 8080' ok
want tcp 'echo canary-tcp' canary-tcp
want con 'udp 10.9.0.2 8080 9301' ok
want con 'send canary-con' ok
want heard recvfrom 'canary-con 10.9.0.1'
bare a both "$LAB/udp-out.toml" 'udp-bind :: 9400' 'sendto ::ffff:10.9.0.2 8080 canary-mapped'
expect both ok
expect both ok
want heard recvfrom 'canary-mapped 10.9.0.1'

# While they stand: of connections the sockets' own policies hold; what leans on the SPD breaks.
for device in eth0 all; do
  keeps_out a ipv4 "$device.disable_xfrm"
  for name in held both; do
    to=10.9.0.2
    [ $name = held ] || to=::ffff:10.9.0.2
    want $name "sendto $to 8080 canary-$name-$device" EPROTO
    want $name "sendto $to 8089 canary-$name-$device" EPROTO # to whom it has not sent yet
    # It is the kernel that holds it, whoever is not asked.
    want $name "sendto_past $to 8080 canary-$name-$device" EPERM
    want $name "sendto_past $to 9999 canary-$name-$device" EPERM
    expect_eq "nothing of $name is in clear" "$(clear "canary-$name-$device")" 0
  done
  want both "sendto fd00::2 8083 canary-six-$device" ok
  want heard6 recvfrom "canary-six-$device fd00::1"
  want_latches a 2 'BROKEN .* 10\.9\.0\.2 bob alice transport aes-gcm-16:256 no-xfrm'
  says "why: it names the setting" "no-xfrm .*net\\.ipv4\\.conf\\.$device\\.disable_xfrm must be 0" latchkey why
  want tcp "echo canary-tcp-$device" "canary-tcp-$device"
  want con "send canary-con-$device" ok
  want heard recvfrom "canary-con-$device 10.9.0.1"
  setting a ipv4 "$device.disable_xfrm" 0
  want_logged a "it is gone" 'the SPD is asked again'
  want held "sendto 10.9.0.2 8080 canary-again-$device" ok
  want heard recvfrom "canary-again-$device 10.9.0.1"
  want both "sendto ::ffff:10.9.0.2 8080 canary-too-$device" ok
  want heard recvfrom "canary-too-$device 10.9.0.1"
  want_latches a 0 'BROKEN .*'
done

# disable_policy: who comes in clear to a server that others reach so is not kept out then, and is not served, nor is who
# waits in its queue when that is over.
sed 's/^direction = "in"/&\nremote = ["10.9.0.1"]/' "$LAB/in.toml" >"$LAB/mixed.toml"
latched b mixed "$LAB/mixed.toml" 'listen 0.0.0.0 8081'
latched b queue "$LAB/mixed.toml" 'listen 0.0.0.0 8082'
expect mixed ok
expect queue ok
comes() { # comes NAME PORT: in clear, from a's address
  sock a "$1" "connect 10.9.0.2 $2" "send clear-$1"
  expect "$1" ok
  expect "$1" ok
}
keeps_out b ipv4 eth0.disable_policy
tell mixed accept
comes early 8081
want_logged b "it is refused" 'refused: no-xfrm .*net\.ipv4\.conf\.eth0\.disable_policy must be 0'
comes queued 8082
waits() { on b ss -Hltn 'sport = :8082' | awk '{ found = $2 == 1 } END { exit !found }'; }
check "the other waits" retry 5 waits
setting b ipv4 eth0.disable_policy 0
want_logged b "it is gone" 'the SPD is asked again about what comes in'
tell queue accept
want_logged b "and is refused" 'refused: no-xfrm .*it came while the SPD was not asked'
for port in 8081 8082; do
  latched a "late$port" "$LAB/out.toml" "connect 10.9.0.2 $port" "send canary-late-$port"
  expect "late$port" ok
  expect "late$port" ok
done
expect mixed 10.9.0.1
want mixed recv canary-late-8081
expect queue 10.9.0.1
want queue recv canary-late-8082
check "what was refused was in clear" [ "$(clear clear-early)" -ge 1 ]

expect_eq "nothing of ours was ever in clear" "$(clear canary)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 10 ]
