# A program's own request for one socket: more than its policy asks, from a policy or none; refused before anything is sent where the peer, or the policy, says otherwise; a listener's holds for its children, over a restart of the broker too.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
printf 'latchkey = 1\napplication = "free"\n' >"$LAB/free.toml"
wish() { # wish ID: sets wanted, in the form of sock.py
  wanted="[[rule]]|action = \"protect\"|peer = \"p\"|[peer.p]|id = [\"$1\"]|auth = [\"manual\"]"
}
capture wire
latched b srv "$LAB/in.toml" 'listen :: 8080' serve
expect srv ok
expect srv ok

# Where the program's policy asks for nothing, the request alone decides.
latched a cli "$LAB/free.toml"
wish bob
mine=$wanted
want cli "wish 4 $mine" ok
want cli "wish-again $mine" EALREADY
want cli 'state' ENOTCONN
want cli 'again 10.9.0.2 8080' ok
want cli 'state' 2
want cli 'peer-id' bob
want cli 'echo canary-wish' canary-wish
want cli "wish-again $mine" EISCONN
want_latches a 1 'ESTABLISHED [0-9]+ 10\.9\.0\.2 bob alice transport aes-gcm-16:256 -'
expect_eq "it is shown as what it is" "$(on a latchkey list --json | "${python[@]}" -c "import json, sys
print([(each['policy'], each['rule'], each['implicit']) for each in json.load(sys.stdin)['latches']])")" "[('free', 'request', False)]"

# The peer is somebody else: nothing is sent, not even a SYN.
wish mallory
want cli 'use other' ok
want cli "wish 4 $wanted" ok
want cli 'again 10.9.0.2 8080' EKEYREJECTED
want cli 'again 10.9.0.2 8080' EKEYREJECTED
# A socket keeps its request when it was used within this host before, which no latch is for.
want cli 'use inside' ok
want cli "wish 4 $wanted" ok
want cli 'again 10.9.0.1 8099' ECONNREFUSED
want cli 'again 10.9.0.2 8080' EKEYREJECTED
want cli 'use other' ok
# Nor by a way that the shim does not see.
want cli 'mark' 0x80000000
want cli 'use nobody' ok
want cli 'wish 4 [[rule]]|action = "wave"' EINVAL
want_refusal a bad-request

# The policy is a floor: its peer and its protection stay, whatever the program asks.
latched a held "$LAB/out.toml"
want held 'wish 4 [[rule]]|action = "bypass"' ok
want held 'again 10.9.0.2 8080' EACCES
want_refusal a unprivileged-bypass
want held 'use weak' ok
want held 'wish 6 [[rule]]|action = "protect"|protection = "w"|[protection.w]|encryption = ["chacha20-poly1305"]' ok
want held 'again fd00::2 8080' EACCES
want_refusal a unprivileged-weaken
want held 'use more' ok
want held "wish 6 $mine|[x]" EINVAL
want held "wish-again [[rule]]|action = \"protect\"|on_break = \"suspend\"|direction = \"out\"" ok
want held 'again fd00::2 8080' ok
want held disposition 2
want held 'echo canary-more' canary-more

# A listener's own, in a program whose policy has no rule.
latched b own "$LAB/free.toml"
wish alice
want own "wish 4 $wanted" ok
want own 'wish-listen 10.9.0.2 8085' ok
latched a peer "$LAB/out.toml" 'connect 10.9.0.2 8085'
expect peer ok
want own accept 10.9.0.1
want own peer-id alice
want own 'use plain' ok
want own 'wish 4 [[rule]]|action = "bypass"' ok
want own 'wish-listen 10.9.0.2 8086' EPROTONOSUPPORT
refuses_clear c 10.9.0.2 8085
wish carol
want own 'use carol' ok
want own "wish 4 $wanted" ok
want own 'wish-listen 10.9.0.2 8087' ok
tell own accept
latched a wrong "$LAB/out.toml" 'timeout 3' 'connect 10.9.0.2 8087'
expect wrong ok
expect wrong timeout # not even answered: no peer that the listener may have is there
silent own

# Requests outlive the broker: those that wait, and those of latches.
want cli 'use waits' ok
wish mallory
want cli "wish 4 $wanted" ok
kill_broker a
start_broker a
want cli 'again 10.9.0.2 8080' EKEYREJECTED
want cli 'use 0' ok
want cli 'state' 2
want cli 'echo canary-again' canary-again
expect_eq "still a request" "$(on a latchkey list --json | grep -c '"rule": "request"')" 2
expect_eq "no packet in clear, not even a SYN" "$(packets wire 'host 10.9.0.1 and tcp portrange 8080-8084')" 0
