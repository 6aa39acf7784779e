#!/bin/bash
# lab.sh N: the same measurement between two hosts of the lab, with real ESP (run by `run`).
set -u
connect=/opt/latchkey-lab/bin/connect
printf 'latchkey = 1\napplication = "bench"\n[peer.them]\nid = ["bob"]\n[[rule]]\nprotocol = "tcp"\nremote_port = [8080]\ndirection = "out"\naction = "protect"\npeer = "them"\n[[rule]]\naction = "bypass"\n' >"$LAB/bench.toml"
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
on a latchkey run -p "$LAB/bench.toml" -- $connect measure 10.9.0.2 8080 "$1"
