# protect-or-bypass: decided once, when the connection is made, and never again.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice
policy_header "$LAB/optional.toml"
printf '[peer.them]\nid = ["bob"]\n[[rule]]\nname = "perhaps"\ndirection = "out"\nremote_port = ["8080-8089"]\naction = "protect-or-bypass"\nprotection = "strong"\npeer = "them"\n' >>"$LAB/optional.toml"
start_broker a
start_broker b
capture wire
# No SA: in clear, and every view says so.
sock b plain 'listen :: 8080' serve
wait_listen b 8080
latched a clear "$LAB/optional.toml" 'connect 10.9.0.2 8080'
expect clear ok
want clear 'echo optional-clear-1' optional-clear-1
check "list says CLEAR" grep -q ' CLEAR ' <(on a latchkey list)
expect_eq "JSON says it" "$(on a latchkey list --json | grep -c '"clear": true')" 1
check "list --spd shows the socket's own policy" grep -q 'socket .*allow CLEAR' <(on a latchkey list --spd)
# SAs appear: what is decided stays.
manual_sa a b 7 alice bob
want clear 'echo optional-clear-2' optional-clear-2
check "it is in clear" [ "$(clear_octets wire optional-clear-1)" -ge 2 ]
check "it still is" [ "$(clear_octets wire optional-clear-2)" -ge 2 ]
expect_eq "no ESP for it" "$(esp_packets wire a b)" 0
# So does an SPD that would protect it.
spd_port a "10.9.0.1 10.9.0.2" 8080 theirs esp 7
want clear 'echo optional-clear-3' optional-clear-3
check "it is in clear to the end" [ "$(clear_octets wire optional-clear-3)" -ge 2 ]
on a ip xfrm policy flush
end clear
# With an SA: protected, and it stays so when the SA goes.
serve b srv "$LAB/in.toml" :: 8081
latched a cli "$LAB/optional.toml" 'connect 10.9.0.2 8081'
expect cli ok
want cli 'echo optional-esp-1' optional-esp-1
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
on a ip xfrm state flush
tell cli 'echo optional-esp-2'
sleep 3
expect_eq "nothing in clear" "$(clear_octets wire optional-esp)" 0
end cli
# Somebody else's SA is no reason to go in clear.
manual_sa a b 9 alice mallory
expect_eq "an impostor" "$(once_latched a "$LAB/optional.toml" 'connect 10.9.0.2 8081')" "= connect: EKEYREJECTED"
# Nor may it where the system protects, without the grant.
on a ip xfrm state flush
spd_port a "10.9.0.1 10.9.0.2" 8080 theirs esp 7
expect_eq "unprivileged" "$(as a 1000 "$LAB/optional.toml" 'connect 10.9.0.2 8080')" "= connect: ENOKEY"
want_refusal a no-sa
