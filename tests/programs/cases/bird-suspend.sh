# BIRD with on_break = "suspend": an impostor freezes the BGP session, nothing moves and nobody tears it down; it goes on afterwards.
needs='bird birdc'

configure() { # configure HOST OWN-AS OTHER-AS ROUTE REST
  cat >"$folder/$1.conf" <<END
router id 10.9.0.$2;
protocol device {}
protocol static { ipv4; route $4 unreachable; }
protocol static later { disabled; ipv4; route ${4/.0\//.128/} unreachable; }
protocol bgp them {
  $5
  hold time 240;
  ipv4 { import all; export where source = RTS_STATIC; };
}
END
}
birdc_at() { # birdc_at HOST WORD...
  local host=$1
  shift
  on "$host" birdc -s "$folder/$host.ctl" "$@"
}
has() { birdc_at "$1" show route protocol them 2>/dev/null | grep -qF "$2"; }
since() { birdc_at "$1" show protocols them | awk '/^them/ { print $4, $5, $6 }'; }
broken() { latches a | grep -qE "^BROKEN [0-9]+ 10\.9\.0\.2 bob .* conflict-sa"; }
whole() { latches a | grep -qE "^ESTABLISHED [0-9]+ 10\.9\.0\.2 bob "; }

alone() {
  local before file
  # shellcheck source=../../lab/programs/product.sh
  . "$here/../lab/programs/product.sh"
  port=8980 folder=$LAB/bird-suspend
  mkdir -p "$folder"
  for file in in out; do
    sed 's/^action = "protect"/&\non_break = "suspend"/' "$LAB/$file.toml" >"$folder/$file.toml"
  done
  configure b 2 1 198.51.100.0/25 "local 10.9.0.2 port $port as 65002; neighbor 10.9.0.1 as 65001; passive on;"
  configure a 1 2 203.0.113.0/25 "local 10.9.0.1 as 65001; neighbor 10.9.0.2 port $port as 65002; connect retry time 2; connect delay time 1;"
  bg b bird-b latchkey run -p "$folder/in.toml" -- bird -f -c "$folder/b.conf" -s "$folder/b.ctl" -P "$folder/b.pid"
  wait_listen b $port
  bg a bird-a latchkey run -p "$folder/out.toml" -- bird -f -c "$folder/a.conf" -s "$folder/a.ctl" -P "$folder/a.pid"
  retry 40 has a 198.51.100.0 && retry 40 has b 203.0.113.0 || { echo 'FAIL bird-suspend: no session'; return; }
  before="$(since a) $(since b)"
  impostor
  retry 20 broken || { echo "FAIL bird-suspend: an impostor does not freeze it: $(latches a)"; return; }
  birdc_at b enable later >/dev/null
  sleep 3 # nothing is to come
  ! has a 198.51.100.128 || { echo 'FAIL bird-suspend: a route came while it was suspended'; return; }
  sa_delete a b 9
  retry 20 whole || { echo "FAIL bird-suspend: it does not go on: $(latches a)"; return; }
  retry 60 has a 198.51.100.128 || { echo 'FAIL bird-suspend: the route does not come afterwards'; return; }
  [ "$(since a) $(since b)" = "$before" ] || { echo "FAIL bird-suspend: the session was torn down: $before, $(since a) $(since b)"; return; }
  echo 'ok bird-suspend'
}
