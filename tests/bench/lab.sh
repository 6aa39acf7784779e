#!/bin/bash
# lab.sh N: the same measurement between two hosts of the lab, with real ESP (run by `run`).
set -u
connect=/opt/latchkey-lab/bin/connect
echo=/opt/latchkey-lab/bin/echo
printf 'latchkey = 1\napplication = "bench"\n[peer.them]\nid = ["bob"]\n[[rule]]\nprotocol = "tcp"\nremote_port = [8080]\ndirection = "out"\naction = "protect"\npeer = "them"\n[[rule]]\nprotocol = "udp"\nremote_port = [8090]\ndirection = "out"\naction = "protect"\npeer = "them"\n[[rule]]\ndirection = "out"\naction = "bypass"\n' >"$LAB/bench.toml"
manual_sa a b 7 alice bob
bg a broker latchkeyd
retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker.log" || fail "no broker: $(cat "$LAB/broker.log")"
# The server is in clear in any case: its answers to ESP leave under ESP by an entry in its SPD.
ip -n b xfrm policy add src 10.9.0.2 dst 10.9.0.1 sport 8080 proto tcp dir out \
  tmpl proto esp mode transport reqid 7
for port in 8080 8081; do
  bg b server-$port $connect serve 10.9.0.2 $port
  wait_listen b $port
done
on a latchkey run -p "$LAB/bench.toml" -- $connect measure 10.9.0.2 8080 "$1" || fail "no connects"

# Datagrams: to 8090 of a socket that the broker holds, to 8091 by a's SPD.
for port in 8090 8091; do
  ip -n b xfrm policy add src 10.9.0.2 dst 10.9.0.1 sport $port proto udp dir out tmpl proto esp mode transport reqid 7
done
ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 dport 8091 proto udp dir out tmpl proto esp mode transport reqid 7
bg b echo $echo serve 10.9.0.2 8090
retry 20 grep -q ready "$LAB/echo.log" || fail "no echo server: $(cat "$LAB/echo.log")"
sent() { ip -n a -s xfrm state list src 10.9.0.1 dst 10.9.0.2 | sed -n 's/.* \([0-9]*\)(packets).*/\1/p' | head -n 1; }
before=$(sent)
on a latchkey run -p "$LAB/bench.toml" -- $echo measure 10.9.0.2 8090 "$1" || fail "no datagrams"
[ $(($(sent) - before)) -ge $((2 * $1)) ] || fail "not all of them under ESP: $before, $(sent), of 2 x $1"
