# What a held UDP socket sends stays off the wire, in clear, when its SPD entries do not see its mark: a firewall that sets another, an interface without XFRM, a mark in control data; what the rules let pass in clear still leaves, and what they protect does again when that is over. Connected ones leave under ESP, or not.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_out "$LAB/tcp-out.toml" 8085 bob
policy_in "$LAB/tcp-in.toml" 8085 alice
policy_out "$LAB/out.toml" '"8080-8089"' bob
policy_in "$LAB/in.toml" '"8080-8089"' alice
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/out.toml" "$LAB/in.toml"
manual_sa a b 7 alice bob
start_broker a
start_broker b
capture wire
_under="latchkey run --keep-net-caps -p $LAB/out.toml --"
sock a cli 'udp-bind 0.0.0.0 9000'
sock a con 'udp 10.9.0.2 8082 9001'
_under=
for name in cli con; do expect $name ok; done
latched b srv "$LAB/in.toml" 'udp-bind 0.0.0.0 8080' 'timeout 2'
latched b other "$LAB/in.toml" 'udp-bind 0.0.0.0 8082' 'timeout 2'
sock b plain 'udp-bind 0.0.0.0 7000' 'timeout 2'
for name in srv other plain; do
  expect $name ok
  expect $name ok
done
# a server at a: rules of what comes in hold its answers
_under="latchkey run --keep-net-caps -p $LAB/in2.toml --"
policy_in "$LAB/in2.toml" 8090 bob
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in2.toml"
sock a answers 'udp-bind 0.0.0.0 8090' 'timeout 2'
_under=
expect answers ok
expect answers ok

# One that goes in clear for want of keys, and one that no fence is around.
sed 's/action = "protect"/action = "protect-or-bypass"/' "$LAB/out.toml" >"$LAB/optional.toml"
latched a optional "$LAB/optional.toml" 'udp 10.9.0.3 8083'
expect optional ok
sock c third 'udp-bind 0.0.0.0 8083'
expect third ok
_under="latchkey run --no-fence -p $LAB/out.toml --"
sock a bare 'udp-bind 0.0.0.0 9005'
_under=
expect bare ok
serve b tcp-srv "$LAB/tcp-in.toml" 10.9.0.2 8085
latched a tcp "$LAB/tcp-out.toml" 'connect 10.9.0.2 8085'
expect tcp ok

sends() { # sends TEXT: all of it comes, protected
  want cli "sendto 10.9.0.2 8080 canary-$1" ok
  want srv recvfrom "canary-$1 10.9.0.1"
  want con "send canary-con-$1" ok
  want other recvfrom "canary-con-$1 10.9.0.1"
  want answers "sendto 10.9.0.2 8080 canary-answer-$1" ok
  want srv recvfrom "canary-answer-$1 10.9.0.1"
  want tcp "echo canary-tcp-$1" "canary-tcp-$1"
}
in_clear() { # in_clear TEXT: lawfully, from a held socket, and one that is not
  want cli "sendto 10.9.0.2 7000 clear-$1" ok
  want plain recvfrom "clear-$1 10.9.0.1"
  want optional "send clear-optional-$1" ok
  want third recvfrom "clear-optional-$1 10.9.0.1"
}
none() { expect_eq "$1: nothing of ours in clear" "$(clear_octets wire canary)" 0; }
refused() { # refused NAME COMMAND: by the fence, or by the broker, which has seen what is wrong (no-xfrm)
  ask "$1" "$2"
  [[ ${REPLY#*: } =~ ^(EPERM|EPROTO)$ ]] || fail "$1: $2: got \"$REPLY\", want EPERM or EPROTO"
}
stays() { # stays WHY: what is to be protected does not leave
  refused cli "sendto 10.9.0.2 8080 canary-$1"
  refused cli "sendto 10.9.0.2 8081 canary-new-$1"
  refused answers "sendto 10.9.0.2 8080 canary-answer-$1"
  want srv recvfrom timeout
  # By its own policy, which no mark is needed for.
  want con "send canary-con-$1" ok
  want other recvfrom "canary-con-$1 10.9.0.1"
  want tcp "echo canary-tcp-$1" "canary-tcp-$1"
  none "$1"
}

sends before
in_clear before
want bare 'sendto 10.9.0.2 8080 bare-before' ok
want srv recvfrom 'bare-before 10.9.0.1'
expect_eq "nothing of it in clear" "$(clear_octets wire bare)" 0
check "under ESP" [ "$(esp_packets wire a b)" -ge 3 ]

rule=(OUTPUT -j MARK --set-mark 1)
on a iptables-legacy -t mangle -A "${rule[@]}" || fail "no rule"
stays mangle
in_clear mangle
want bare 'sendto 10.9.0.2 8080 bare-mangle' ok
check "without a fence it is seen" [ "$(clear_octets wire bare-mangle)" = 1 ]
on a iptables-legacy -t mangle -D "${rule[@]}" || fail "it stays"
sends mangled

on a sysctl -qw net.ipv4.conf.eth0.disable_xfrm=1 || fail "no sysctl"
stays noxfrm
on a sysctl -qw net.ipv4.conf.eth0.disable_xfrm=0 || fail "no sysctl"
sleep 2 # the broker looks twice a second
sends xfrm

# The shim refuses, and past it the fence.
for way in libc past; do
  want cli "send-marked 10.9.0.2 8080 1 canary-marked-$way $way" EPERM
  want cli "send-marked 10.9.0.2 8081 1 canary-marked-new-$way $way" EPERM
  none "$way"
done
want cli "send-marked 10.9.0.2 7000 1 clear-marked past" ok
want plain recvfrom 'clear-marked 10.9.0.1'
want con 'send-marked 10.9.0.2 8082 1 canary-con-marked' EPERM
want con 'send-marked 10.9.0.2 8082 1 canary-con-marked past' ok
want other recvfrom 'canary-con-marked 10.9.0.1'
# Wherever to: its policy is about all that it sends.
want con 'send-marked 10.9.0.2 8080 1 canary-elsewhere past' ok
want srv recvfrom 'canary-elsewhere 10.9.0.1'
sends after
none end
check "it is on record" retry 5 grep -q 'refused: fenced -> 10.9.0.2:808[01] (packet dropped' "$LAB/broker-a.log"
check "and told" eval 'on a latchkey why | grep -q fenced'
