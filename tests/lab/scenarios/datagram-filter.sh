# The kernel's part of unconnected UDP: SAs tagged in place say in the filter what a datagram came under, without privileges, over the death of a broker; replay state, counters and lifetimes stay, and charon goes on.
set -u

# shellcheck source=../programs/probe.sh
. "$(dirname "$0")/../programs/probe.sh"

start_probe a
protect() { # protect HOST DESTINATION REQID: what it sends there goes under ESP
  on "$1" ip xfrm policy add dst "$2" proto udp dport 5000 dir out priority 10 tmpl proto esp reqid "$3" mode transport || fail "no policy"
}

# --- manual SAs: two identities, both families, one socket of both ---
manual_sa a b 7 alice bob
manual_sa a c 9 alice carol aes-cbc:128/hmac-sha2-256
spi() { awk -v src="$1" -v dst="$2" '$1 == src && $2 == dst { print $3 }' "$LAB/sa.$3"; }
b4=$(spi 10.9.0.2 10.9.0.1 7) b6=$(spi fd00::2 fd00::1 7) c4=$(spi 10.9.0.3 10.9.0.1 9)
is "bind :: 5000" ok
is "filter 0.0.0.0/0=tag ::/0=tag 10.9.0.3=tag 10.9.0.3@6000=pass" ok
is "tag $b4 0x70000 0x7fff0000" ok
is "tag $b6 0x70000 0x7fff0000" ok
is "tag $c4 0x90000 0x7fff0000" ok
is "admit 10.9.0.2 0 0x70000" ok
is "admit fd00::2 0 0x70000" ok
# Loaded is loaded: from here on without CAP_BPF, as the broker.
is unprivileged ok
expect_eq "no CAP_BPF (39)" "$(on a sh -c 'grep CapEff /proc/$(pidof datagrams-probe)/status' | awk '{ print substr($2, length($2) - 9, 1) % 8 / 8 }')" 0
is "dismiss 10.9.0.9 0 0x70000" ok
is "filter 0.0.0.0/0=tag ::/0=tag 10.9.0.3@6000=pass" ok

send b 10.9.0.1 clear-4
send b fd00::1 clear-6
send c 10.9.0.1 clear-c
is recv nothing
is dropped 3
protect b 10.9.0.1 7
protect b fd00::1 7
protect c 10.9.0.1 9
capture wire
send b 10.9.0.1 esp-4
is recv "esp-4 from 10.9.0.2"
send b fd00::1 esp-6
is recv "esp-6 from fd00::2"
# c's SA is c's: not admitted, whatever address; its port 6000 passes as it comes.
send c 10.9.0.1 esp-c
is recv nothing
send c 10.9.0.1 free-c 6000
is recv "free-c from 10.9.0.3"
is "admit 10.9.0.3 6001 0x70000" ok
send c 10.9.0.1 wrong-tag 6001
is recv nothing
is "admit 10.9.0.3 6001 0x90000" ok
send c 10.9.0.1 right-tag 6001
is recv "right-tag from 10.9.0.3"
expect_eq "nothing in clear" "$(clear_octets wire esp-)$(clear_octets wire -tag)" 00
capture_stop wire
# Large ones come in pieces inside ESP's.
send b 10.9.0.1 "$(printf 'long-%01600d' 0)"
long=$(ask recv)
expect_eq "a long one" ${#long} $((1605 + 14))

# --- tagged in place: nothing else of an SA changes ---
key="0x$(printf '%072d' 7)"
for host in a b; do
  on $host ip xfrm state add src 10.9.0.2 dst 10.9.0.1 proto esp spi 0x5001 reqid 21 mode transport \
    replay-window 128 flag esn aead 'rfc4106(gcm(aes))' "$key" 128 limit time-hard 3000 limit packet-hard 100000 || fail "no ESN"
done
on b ip xfrm policy add src 10.9.0.2 dst 10.9.0.1 proto udp dport 5000 sport 7000 dir out priority 1 tmpl proto esp reqid 21 mode transport
is "admit 10.9.0.2 7000 0x150000" ok
send b 10.9.0.1 untagged 7000
is recv nothing
before=$(shown 0x5001)
made=$(ask "mark 0x5001")
expect_eq "no mark yet" "${made% *}" 0x0/0x0
ask events >/dev/null
sleep 1.1 # the time of birth would show
is "tag 0x5001 0x150000 0x7fff0000" ok
expect_eq "the event tells the SA as it is" "$(ask events)" "0x5001 0x150000/0x7fff0000 ${made#* }"
expect_eq "and so does the SAD" "$(ask "mark 0x5001")" "0x150000/0x7fff0000 ${made#* }"
expect_eq "nothing else changed" "$(shown 0x5001)" "$before"
check "replay state is shown" grep -q 'seq 0x1\b' <<<"$before"
send b 10.9.0.1 tagged 7000
is recv "tagged from 10.9.0.2"
check "and goes on" grep -q 'seq 0x2\b' <(on a ip -s -d xfrm state list spi 0x5001)
# Other bits of the key manager's mark stay.
on a ip xfrm state add src 10.9.0.3 dst 10.9.0.1 proto esp spi 0x5003 reqid 23 mode transport aead 'rfc4106(gcm(aes))' "$key" 128 output-mark 0x12 mask 0xff
is "tag 0x5003 0x30000 0x7fff0000" ok
marks=$(ask "mark 0x5003")
expect_eq "both marks" "${marks% *}" 0x30012/0x7fff00ff
is "tag 0x5003 0 0x7fff0000" ok
marks=$(ask "mark 0x5003")
expect_eq "and back" "${marks% *}" 0x12/0x7fff00ff
on a ip xfrm state delete src 10.9.0.3 dst 10.9.0.1 proto esp spi 0x5003
is "tag 0x5003 0x30000 0x7fff0000" "no such SA"

# --- a broker dies; the filter stays, and the next one has it in hand again ---
send b 10.9.0.1 before-death
is recv "before-death from 10.9.0.2"
# The probe becomes a program that holds the socket and nothing of the broker's.
cat >"$LAB/hold.py" <<'END'
import os, socket, sys
udp = socket.socket(fileno=int(os.environ["FD"]))
udp.settimeout(2)
for line in sys.stdin:
    if line == "end\n":
        os.execvp("datagrams-probe", ["datagrams-probe", "/sys/fs/bpf/latchkey", os.environ["FD"]])
    try:
        print(udp.recv(2000).decode(), flush=True)
    except TimeoutError:
        print("nothing", flush=True)
END
is "keep exec python3 $LAB/hold.py" ok
send b 10.9.0.1 under-esp
is recv under-esp
send b 10.9.0.1 clear-again 6000 # the policy of b covers it: not in clear
is recv clear-again
send c 10.9.0.1 wrong-again
is recv nothing
echo end >&"$probe_in"
expect_eq "the next one" "$(answer)" "ready "
expect_eq "it goes on counting" "$(($(ask dropped) > 3))" 1
send b 10.9.0.1 inherited
is recv "inherited from 10.9.0.2"
# Given to another SA, the tag no longer means what it meant to the broker before.
is "tag $c4 0x70000 0x7fff0000" ok
send b 10.9.0.1 old-admission
is recv nothing
is "admit 10.9.0.2 0 0x70000" ok
is "filter 0.0.0.0/0=tag" ok
send b 10.9.0.1 admitted-anew
is recv "admitted-anew from 10.9.0.2"
send b fd00::1 not-any-more
is recv nothing
is forget ok
send b 10.9.0.1 forgotten
is recv nothing
check "pinned while it runs" [ -n "$(on a ls /sys/fs/bpf/latchkey)" ]
end_probe
expect_eq "nothing is left behind" "$(on a ls /sys/fs/bpf/latchkey)" ""
