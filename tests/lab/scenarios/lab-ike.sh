# The lab's strongSwan: certificates and PSK, both families, three hosts, who may be whom, rekeying, and what
# is left in the kernel when charon ends well and when it is killed.
set -u

port_now=5000
send() { # send CLIENT-HOST SERVER-HOST ADDRESS TEXT: over TCP, and back
  local port=$((port_now += 1))
  bg "$2" "server-$port" socat "TCP6-LISTEN:$port,ipv6only=0,reuseaddr" EXEC:cat
  wait_listen "$2" "$port"
  expect_eq "the echo of $4 over $3" "$(printf %s "$4" | on "$1" socat -t5 - "TCP:$3:$port,connect-timeout=8")" "$4"
}
sas() { # sas HOST: without the SPIs
  ike_sas "$1" | cut -d' ' -f1-5
}
states() { ip -n "$1" xfrm state | grep -c '^src'; }
# The sockets of charon have policies of their own, which are not counted here.
entries() { ip -n "$1" xfrm policy | grep -c 'dir '; }
spi() { # spi HOST CHILD: the one it sends under
  ike_sas "$1" | awk -v child="$2" '$1 == child { print $7 }'
}

begin=$SECONDS
ike a b c
echo "three hosts are ready after $((SECONDS - begin)) s"
for host in a b c; do
  check "charon.vici of $host" on $host test -S /var/run/charon.vici
  expect_eq "keys of $host" "$(on $host ls /etc/swanctl/private)" $host.key
done
expect_eq "no SA yet" "$(sas a)$(ip -n a xfrm state)" ""

capture wire
send a b 10.9.0.2 canary-clear-4
send a b '[fd00::2]' canary-clear-6
check "what is in clear is seen" [ "$(clear_octets wire canary-clear)" -ge 4 ]
check "a initiates" ike_up a a-b
check "b initiates, over IPv6" ike_up b a-b-6
check "c initiates" ike_up c b-c
expect_eq "a's peers" "$(sas a)" $'a-b 65537 INSTALLED a.lab b.lab\na-b-6 65541 INSTALLED a.lab b.lab'
expect_eq "b's peers" "$(sas b)" \
  $'a-b 65537 INSTALLED b.lab a.lab\na-b-6 65541 INSTALLED b.lab a.lab\nb-c 65539 INSTALLED b.lab c.lab'
expect_eq "c's peers" "$(sas c)" 'b-c 65539 INSTALLED c.lab b.lab'
expect_eq "the same SPIs at both ends" "$(spi a a-b)" "$(ike_sas b | awk '$1 == "a-b" { print $6 }')"
expect_eq "SAs of b" "$(states b)" 6
expect_eq "reqids of b" "$(ip -n b xfrm state | grep -o 'reqid [0-9]*' | sort | uniq -c | xargs)" \
  '2 reqid 65537 2 reqid 65539 2 reqid 65541'
check "AES-256-GCM" grep -q 'rfc4106(gcm(aes)) 0x[0-9a-f]\{72\} 128' <(ip -n a xfrm state)
expect_eq "a's entries: in and out for each child" "$(entries a)" 4
esp=$(esp_packets wire a b)
send a b 10.9.0.2 canary-esp-4
four=$(esp_packets wire a b)
send b a '[fd00::1]' canary-esp-6
six=$(esp_packets wire a b)
send c b 10.9.0.2 canary-esp-c
check "IPv4 goes by ESP" [ $((four - esp)) -ge 6 ]
check "IPv6 goes by ESP" [ $((six - four)) -ge 6 ]
check "so does c's" [ "$(esp_packets wire b c)" -ge 6 ]
expect_eq "none of it in clear" "$(clear_octets wire canary-esp)" 0
capture_stop wire

# TERM and KILL.
ike_stop a
expect_eq "after TERM a has no SA and no entry" "$(states a) $(entries a)" '0 0'
expect_eq "nor has its peer" "$(states b) $(entries b)" '2 2'
ike_restart a
check "a initiates again" ike_up a a-b
old=$(spi a a-b)
ike_kill a
expect_eq "after KILL SAs and entries are as they were" "$(states a) $(entries a)" '2 2'
ike_restart a
expect_eq "charon knows nothing of them when it is back" "$(sas a) $(states a)" ' 2'
check "a initiates once more" ike_up a a-b
check "under new SPIs" [ "$(spi a a-b)" != "$old" ]
expect_eq "the old SAs are still there" "$(states a)" 4
expect_eq "at the peer they are replaced" "$(sas b)" \
  $'a-b 65537 INSTALLED b.lab a.lab\nb-c 65539 INSTALLED b.lab c.lab'
ip -n a xfrm state flush
ip -n a xfrm policy flush
ike_restart a

# Somebody else, of the same CA, at b's address.
ike_down b a-b
IKE_ID=mallory ike b
if ike_up a a-b; then fail "mallory passes for b"; fi
if ike_up b a-b; then fail "mallory may initiate"; fi
expect_eq "nobody but b is b" "$(sas a)" ""
IKE_REMOTE='*.lab' ike a
ike b
check "where any name will do, b's does" ike_up a a-b
IKE_ID=mallory ike b
check "and mallory's, while b's SAs are there" ike_up b a-b
expect_eq "under the very same reqid" "$(sas a)" \
  $'a-b 65537 INSTALLED a.lab b.lab\na-b 65537 INSTALLED a.lab mallory.lab'
ike_down a a-b
expect_eq "both are gone" "$(sas a) $(states a)" ' 0'

# PSK, lifetimes, traps.
IKE_AUTH=psk IKE_REKEY=3 ike a b
check "with a PSK" ike_up a a-b
expect_eq "both ends are who they say" "$(sas a)" 'a-b 65537 INSTALLED a.lab b.lab'
expect_eq "by the secret" "$(on a swanctl --list-conns | grep -A5 '^a-b:' | grep -c 'pre-shared key authentication')" 2
old=$(spi a a-b)
renewed() { grep -q ' 65537 INSTALLED ' <<<"$(ike_sas a)" && [ "$(spi a a-b | tail -n 1)" != "$old" ]; }
check "new SAs after 3 s, under the same reqid" retry 15 renewed
ike_down b a-b
IKE_START=trap ike a c
expect_eq "no SA of a and c" "$(sas c | grep a-c)" ""
capture wire
send a c 10.9.0.3 canary-trap
expect_eq "the packet itself asked for it" "$(sas c | grep a-c)" 'a-c 65538 INSTALLED c.lab a.lab'
expect_eq "and waited" "$(clear_octets wire canary-trap)" 0
ike_kill b
begin=$SECONDS
if ike_up c b-c; then fail "a dead peer answers"; fi
check "a peer that is gone is given up soon" [ $((SECONDS - begin)) -le 9 ]
