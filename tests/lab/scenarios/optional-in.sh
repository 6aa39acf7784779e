# protect-or-bypass where the peer connects: in clear without an SA, under it or not at all with one; decided once.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_out "$LAB/out.toml" '"8080-8089"' bob
policy_header "$LAB/optional.toml"
printf '[peer.them]\nid = ["alice"]\n[[rule]]\nname = "perhaps"\ndirection = "in"\nlocal_port = ["8080-8089"]\naction = "protect-or-bypass"\nprotection = "strong"\npeer = "them"\n' >>"$LAB/optional.toml"
spd_save b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/optional.toml" :: 8080
# No SA: a is served in clear, in both families, and every view says so.
sock a clear4 'connect 10.9.0.2 8080'
expect clear4 ok
want clear4 'echo optional-clear-1' optional-clear-1
sock a clear6 'connect fd00::2 8080'
expect clear6 ok
want clear6 'echo optional-clear-2' optional-clear-2
check "list says CLEAR, twice" [ "$(on b latchkey list | grep -c ' CLEAR ')" = 2 ]
check "list --spd shows the sockets' own policies" grep -q 'socket .*allow CLEAR' <(on b latchkey list --spd)
# SAs appear: what is decided stays, and who has an SA comes in clear no more.
manual_sa a b 7 alice bob
# What the broker learns of an SA it learns after the kernel: shows PATTERN waits for its guards.
shows() { on b latchkey list --spd | grep -q "$1"; }
retry 5 shows 'in .*esp'
want clear4 'echo optional-clear-3' optional-clear-3
check "it is in clear" [ "$(clear_octets wire optional-clear-1)" -ge 2 ]
check "it still is" [ "$(clear_octets wire optional-clear-3)" -ge 2 ]
refuses_clear a 10.9.0.2 8080
refuses_clear a fd00::2 8080
for address in 10.9.0.2 fd00::2; do
  latched a "esp$address" "$LAB/out.toml" "connect $address 8080"
  expect "esp$address" ok
  want "esp$address" 'echo optional-esp' optional-esp
done
want_latches b 2 'ESTABLISHED 8080 .* alice bob transport aes-gcm-16:256 -'
expect_eq "protected ones are not in clear" "$(clear_octets wire optional-esp)" 0
# Others, without an SA, as before.
expect_eq "c in clear" "$(once c 'connect 10.9.0.2 8080' 'echo optional-other' | tail -n 1)" "= echo: optional-other"
# A peer whose SA is somebody else's is no reason to take it in clear.
manual_sa c b 9 mallory bob
retry 5 shows ' 10\.9\.0\.3/32 .*block'
refuses_clear c 10.9.0.2 8080
end clear4
end clear6
end esp10.9.0.2
end espfd00::2
end srv
# Where b's own system protects, clear peers stay outside.
sa_delete c b 9
spd_port b "10.9.0.2 10.9.0.3" 8081 ours esp 9
serve b srv8081 "$LAB/optional.toml" :: 8081
refuses_clear c 10.9.0.2 8081
end srv8081
# So they do by entries that ours come before, unless the server has the grant: root has it.
for port in 8082 8083; do
  on b ip xfrm policy add src 10.9.0.2 dst 10.9.0.3 proto tcp sport $port dir out priority 1000 tmpl proto esp reqid 9 mode transport
  on b ip xfrm policy add src 10.9.0.3 dst 10.9.0.2 proto tcp dport $port dir in priority 1000 tmpl proto esp reqid 9 mode transport
done
serve b srv8082 "$LAB/optional.toml" :: 8082
expect_eq "with the grant, in clear against the system" "$(once c 'connect 10.9.0.2 8082' 'echo optional-granted' | tail -n 1)" "= echo: optional-granted"
check "which is shown" grep -q ' CLEAR ' <(on b latchkey list)
_under="setpriv --reuid=1000 --regid=1000 --clear-groups latchkey run -p $LAB/optional.toml --" sock b srv8083 'listen :: 8083' serve
expect srv8083 ok
expect srv8083 ok
refuses_clear c 10.9.0.2 8083
end srv8082
end srv8083
on b ip xfrm policy flush
on b ip xfrm state flush
stop_broker b
