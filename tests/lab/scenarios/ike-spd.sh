# charon's own SPD entries and pass shunts for the same traffic beside our guards, through its reloads: latched flows stay under ESP, other programs go as charon says, and a clean stop leaves the SPD to charon alone. Then a flush, and another policy put in its place.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

shunt() { # shunt HOST LOCAL-TS REMOTE-TS: a connection that passes in clear; none without a selector
  _ike_host "$1"
  local file=$REPLY/etc/swanctl/conf.d/pass.conf
  if [ $# = 1 ]; then
    rm -f "$file"
  else
    echo "connections { shunt { children { shunt { mode = pass
      start_action = trap
      local_ts = $2
      remote_ts = $3
    } } } }" >"$file"
  fi
  on "$1" swanctl --load-all --noprompt >"$LAB/load" 2>&1 || fail "$1 does not load it: $(cat "$LAB/load")"
}
wide() { # all TCP between a and b
  shunt a '10.9.0.1/32[tcp]' '10.9.0.2/32[tcp]'
  shunt b '10.9.0.2/32[tcp]' '10.9.0.1/32[tcp]'
}
latched_on() { # latched_on STAGE [HOST]: the connection goes on, a new one comes about, and none in clear from HOST
  want cli "echo canary-$1" "canary-$1"
  expect_eq "$1: a new connection" "$(once_latched a "$LAB/out.toml" 'connect 10.9.0.2 8080' "echo canary-new-$1" | tail -n 1)" \
    "= echo: canary-new-$1"
  [ $# = 1 ] || refuses_clear "$2" 10.9.0.2 8080
}
others() { # others STAGE: a program that is not latched passes in clear, as the shunts say
  expect_eq "$1: another program" "$(once a 'timeout 8' 'connect 10.9.0.2 9090' "echo other-$1" | tail -n 1)" "= echo: other-$1"
  check "in clear" [ "$(clear_octets wire "other-$1")" -ge 2 ]
}
stop_all() {
  end cli
  end srv
  ! ike_up a a-b || fail "there was no SA"
  ike_down a a-b
  stop_broker a
  stop_broker b
}
start_all() {
  start_broker a
  start_broker b
  serve b srv "$LAB/in.toml" :: 8080
  latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080'
  expect cli ok
}

key_policies
IKE_START=trap ike a b
wide
spd_save a
spd_save b
grep -q 'tcp' "$LAB/spd-a" || fail "charon has no shunt in the SPD: $(cat "$LAB/spd-a")"
capture wire
sock b other 'listen :: 9090' serve
expect other ok
expect other ok
start_all
latched_on first a
others first

# Reloads: the same again, narrower, none, as wide as our own guards at the server.
on a swanctl --load-all --noprompt >/dev/null || fail "no reload"
on b swanctl --load-all --noprompt >/dev/null || fail "no reload"
latched_on again a
shunt a '10.9.0.1/32[tcp]' '10.9.0.2/32[tcp/8080]'
shunt b '10.9.0.2/32[tcp/8080]' '10.9.0.1/32[tcp]'
latched_on narrow a
shunt a
shunt b
latched_on none c
shunt b '0.0.0.0/0[tcp/8080]' '0.0.0.0/0[tcp]'
latched_on equal c
shunt b
latched_on gone c
wide
latched_on wide a
others wide
stop_all
spd_unchanged a
spd_unchanged b

# The SPD is flushed under it, and others' entries would pass it in clear, at the best priority.
start_all
ip -n a xfrm policy flush
ip -n b xfrm policy flush
latched_on flushed a
others flushed
for host in a b; do
  read -r local remote out in < <([ $host = a ] && echo 10.9.0.1 10.9.0.2 dport sport || echo 10.9.0.2 10.9.0.1 sport dport)
  ip -n $host xfrm policy add src "$local" dst "$remote" proto tcp "$out" 8080 dir out priority 0 action allow &&
    ip -n $host xfrm policy add src "$remote" dst "$local" proto tcp "$in" 8080 dir in priority 0 action allow ||
    fail "no entry at $host"
done
latched_on swapped a
expect_eq "nothing of the latched in clear" "$(clear_octets wire canary)" 0
check "but under ESP" [ "$(esp_packets wire a b)" -gt 50 ]
