#!/bin/bash
# What ./demo shows: this folder's server and client on two hosts of the lab (tests/lab/exec runs it).
#
# Host a is alice's, host b is bob's, c is somebody else's. Every step says what is promised, checks
# it, and prints what it saw; the first one that is not as promised ends the story with status 1.
set -u
web=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
canary='canary-7f3a91'
steps=0
open=0

promise() { # promise TEXT: begins a step
  steps=$((steps + 1))
  open=1
  printf '  %d. %s… ' "$steps" "$1"
}
kept() { # kept WHAT-WAS-SEEN: ends it
  open=0
  printf 'ok (%s)\n' "$1"
}
# Also what the lab's own functions call, maybe in a subshell of which the output is taken.
fail() {
  [ $open = 0 ] || echo 'NOT AS PROMISED' >&2
  echo "demo: step $steps: $*" >&2
  tail -n 5 "$LAB"/*.log >&2
  exit 1
}
must() { # must WHAT CMD...
  local what=$1
  shift
  "$@" || fail "$what"
}
same() { # same WHAT GOT WANT
  [ "$2" = "$3" ] || fail "$1: got \"$2\", not \"$3\""
}

start_broker() { # start_broker HOST
  bg "$1" "broker-$1" latchkeyd
  must "the broker of $1 does not start" retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-$1.log"
}
start_nginx() {
  bg b nginx latchkey run -p "$web/server.toml" -- nginx -p "$LAB/site/" -e stderr -c "$web/nginx.conf"
  wait_listen b 80
}
fetch() { # fetch CURL-ARG...: alice's curl
  on a latchkey run -p "$web/client.toml" -- curl -sS --max-time 20 "$@"
}
download() { # download NAME RATE FILE: a long one, in the background, to $LAB/NAME.got
  bg a "$1" latchkey run -p "$web/client.toml" -- \
    curl -sS --limit-rate "$2" -o "$LAB/$1.got" "http://10.9.0.2/$3"
  must "the download does not begin" retry 20 test -s "$LAB/$1.got"
}
size() { stat -c %s "$LAB/$1.got"; }
grown() { [ "$(size "$1")" -ge "$2" ]; }
# more_esp COUNT: more than 20 ESP packets since there were COUNT.
more_esp() { [ $(($(esp_packets wire a b) - $1)) -gt 20 ]; }
# goes_on NAME: 200 kB more come, under ESP; REPLY says it in words. Some of it may have waited in
# the socket's buffer, so both are waited for.
goes_on() {
  local from packets
  from=$(size "$1")
  packets=$(esp_packets wire a b)
  must "the download stands still at $from octets" retry 20 grown "$1" $((from + 200000))
  must "the download goes on without ESP" retry 20 more_esp "$packets"
  packets=$(($(esp_packets wire a b) - packets))
  REPLY="$(($(size "$1") - from)) octets more, $packets ESP packets"
}
ends() { # ends NAME STATUS: a program of `bg` ends so
  wait "$(cat "$LAB/$1.pid")"
  same "exit status of $1" $? "$2"
}
gone() { ! ps -o stat= -p "$1" | grep -qv Z; }
stop() { # stop NAME SIGNAL
  local pid
  pid=$(cat "$LAB/$1.pid")
  kill "-$2" "$pid"
  [ "$2" = KILL ] || must "$1 does not end" retry 20 gone "$pid"
  { wait "$pid"; } 2>/dev/null # of "Killed"
}
# shell COMMAND: alice types it in her latched shell; REPLY has what it says, "= STATUS" at the end.
shell() {
  : >"$LAB/shell.said"
  printf '%s\n' "$1" >"$LAB/shell.in"
  must "alice's shell does not answer to: $1" retry 20 grep -q '^= ' "$LAB/shell.said"
  REPLY=$(cat "$LAB/shell.said")
}
# row TABLE STATE REMOTE PEER PROGRAM: a latch like that, under ESP with AES-256-GCM, is in the table.
row() {
  awk -v state="$2" -v remote="$3" -v peer="$4" -v program="$5" '
    $2 == state && $3 == "tcp" && $5 ~ remote && $6 == peer && $7 == "esp/aes-gcm-16:256" &&
    $8 ~ program { print $1; exit }' <<<"$1"
}
table() { sed "s/^/       $1 | /" <<<"$2"; }

mkdir -p "$LAB/site/www"
chmod 755 "$LAB" "$LAB/site" "$LAB/site/www"
echo "$canary: the page" >"$LAB/site/www/page"
yes "$canary: a long download" | head -c 20000000 >"$LAB/site/www/long"
head -c 2000000 "$LAB/site/www/long" >"$LAB/site/www/medium"
head -c 32 /dev/urandom | base64 >"$LAB/secret"
chmod 600 "$LAB/secret"
# Small windows, so that a download is a steady stream and the recorder keeps pace.
on a sysctl -qw net.ipv4.tcp_rmem='4096 65536 131072'
capture wire

promise 'two hosts are keyed by hand, as alice and bob, and their brokers run'
for family in '10.9.0.1 10.9.0.2' 'fd00::1 fd00::2'; do
  a=${family% *} b=${family#* }
  on a latchkey sa add --secret-file "$LAB/secret" --local "$a" --remote "$b" --reqid 7 --id alice --peer-id bob ||
    fail 'latchkey sa add at a'
  on b latchkey sa add --secret-file "$LAB/secret" --local "$b" --remote "$a" --reqid 7 --id bob --peer-id alice ||
    fail 'latchkey sa add at b'
done
same 'the SPIs of both ends' "$(ip -n a xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort)" \
  "$(ip -n b xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort)"
start_broker a
start_broker b
kept "$(ip -n a xfrm state | grep -c '^src') SAs at each, under reqid 7"

promise 'an unmodified curl gets a page from an unmodified nginx, over IPv4 and IPv6'
start_nginx
same 'the page over IPv4' "$(fetch http://10.9.0.2/page 2>&1)" "$canary: the page"
same 'the page over IPv6' "$(fetch 'http://[fd00::2]/page' 2>&1)" "$canary: the page"
same 'packets with the page in clear' "$(clear_octets wire "$canary")" 0
kept "\"$canary: the page\" twice"

promise 'latchkey list shows at both ends who the peer is'
download first 100k long
seen_a=$(on a latchkey list) || fail 'latchkey list at a'
seen_b=$(on b latchkey list) || fail 'latchkey list at b'
same 'a latch of curl with bob at a' "$(row "$seen_a" ESTABLISHED '^10.9.0.2:80$' bob '/curl$' | wc -l)" 1
[ -n "$(row "$seen_b" ESTABLISHED '^10.9.0.1:' alice '/nginx$')" ] || fail "b does not list alice: $seen_b"
kept 'bob at a, alice at b'
table a "$seen_a"
table b "$seen_b"

promise 'a client in clear is refused: no connection, no answer'
on c curl -sS --connect-timeout 2 http://10.9.0.2/page >"$LAB/clear" 2>&1
same 'exit status of a clear curl' $? 28
same 'the same over IPv6' "$(on c curl -sS --connect-timeout 2 -w '%{exitcode}' -o "$LAB/clear6" 'http://[fd00::2]/page' 2>/dev/null)" 28
same 'what it got' "$(grep -c "$canary" "$LAB/clear")" 0
answers=$(tcpdump -n -r "$LAB/wire.pcap" 'src port 80 and dst host (10.9.0.3 or fd00::3)' 2>/dev/null | wc -l)
same 'packets in answer' "$answers" 0
kept 'curl: connection timed out, over both; nothing came back'

promise 'the SPD of both hosts is flushed in the middle of a download: it goes on, protected'
mkfifo "$LAB/shell.in"
bg a shell env -u BASH_ENV latchkey run -p "$web/client.toml" -- \
  bash -c 'while read -r line; do { eval "$line"; echo "= $?"; } >"$1/shell.said" 2>&1; done <>"$1/shell.in"' bash "$LAB"
shell 'exec 3<>/dev/tcp/10.9.0.2/80'
same "a connection of alice's shell" "$REPLY" '= 0'
ip -n a xfrm policy flush
ip -n b xfrm policy flush
goes_on first
kept "$REPLY"

promise "an impostor's SA appears for the same addresses: the connections end with ECONNRESET"
manual_sa a b 9 mallory bob
ends first 56
reset='Recv failure: Connection reset by peer'
grep -q "$reset" "$LAB/first.log" || fail "curl says: $(cat "$LAB/first.log")"
shell 'read -r answer <&3'
[[ $REPLY == *'Connection reset by peer'* ]] || fail "the shell's read says: $REPLY"
seen_a=$(on a latchkey list) || fail 'latchkey list at a'
id=$(row "$seen_a" BROKEN '^10.9.0.2:80$' bob '/bash$')
[ -n "$id" ] || fail "no broken latch is listed: $seen_a"
reason=$(on a latchkey show "$id" | sed -n 's/^reason: //p')
same 'the reason on record' "$reason" conflict-sa
must 'bob has it on record too' grep -qw conflict-sa "$LAB/broker-b.log"
kept "curl: $reset; latchkey: $reason"
table a "$seen_a"

promise 'the impostor is gone, nginx listens anew: alice is served again'
sa_delete a b 9
shell 'exec 3<&-'
stop nginx TERM
start_nginx
same 'the page' "$(fetch http://10.9.0.2/page 2>&1)" "$canary: the page"
kept "\"$canary: the page\""

promise 'both brokers are killed in the middle of a download: it goes on, protected'
download second 100k medium
stop broker-a KILL
stop broker-b KILL
goes_on second
kept "$REPLY"

promise 'and without a broker new connections are refused with EHOSTUNREACH'
shell 'curl -sSv --max-time 10 http://10.9.0.2/page 2>&1'
[[ $REPLY == *'No route to host'* && $REPLY == *'= 7' ]] || fail "curl says: $REPLY"
kept 'curl: No route to host'

promise 'new brokers take over: new connections work, and the download is whole'
start_broker a
start_broker b
same 'the page' "$(fetch http://10.9.0.2/page 2>&1)" "$canary: the page"
ends second 0
must 'the download is not the file' cmp "$LAB/second.got" "$LAB/site/www/medium"
kept "$(size second) octets, bit for bit"

promise 'for the whole story: no octet in clear, nothing but ESP between alice and bob'
# What is looked for would be seen: the same words in clear, from b to c.
bg b plain socat -u "FILE:$LAB/site/www/page" TCP4-LISTEN:8080
wait_listen b 8080
before=$(clear_octets wire "$canary")
same 'a page in clear' "$(on c socat -u TCP4:10.9.0.2:8080 -)" "$canary: the page"
after=$(clear_octets wire "$canary")
capture_stop wire
same 'packets with the canary in clear' "$before" 0
[ "$after" -gt 0 ] || fail 'not even a page sent in clear is seen'
esp=$(esp_packets wire a b)
[ "$esp" -gt 1000 ] || fail "only $esp ESP packets"
# A connection that is no more is answered for by the SPD alone: resets without data, SECURITY.md.
others=$(non_esp wire a b)
resets=$(tcpdump -n -r "$LAB/wire.pcap" '(host 10.9.0.1 and host 10.9.0.2 and tcp[13] & 4 != 0 and
    ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) = 0) or (host fd00::1 and host fd00::2 and
    ip6 proto 6 and ip6[53] & 4 != 0 and ip6[4:2] - ((ip6[52] & 0xf0) >> 2) = 0)' 2>/dev/null | wc -l)
same 'other packets than ESP' "$others" "$resets"
kept "$esp ESP packets, $others resets without data, 0 packets of the canary"

echo "demo: $steps steps, all as promised"
