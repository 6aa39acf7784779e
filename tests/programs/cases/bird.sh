# BIRD at both ends: a BGP session over a port of the case's, routes both ways, and one withdrawn.
needs='bird birdc'
configure() { # configure NAME ID OWN-AS ROUTE REST
  cat >"$folder/$1.conf" <<END
router id $2;
protocol device {}
protocol static { ipv4; route $4 unreachable; }
protocol bgp them {
  $5
  ipv4 { import all; export where source = RTS_STATIC; };
}
END
}
serve() {
  configure b 10.9.0.2 65002 198.51.100.0/24 "local 10.9.0.2 port $port as 65002; neighbor 10.9.0.1 as 65001; passive on;"
  configure a 10.9.0.1 65001 203.0.113.0/24 "local 10.9.0.1 as 65001; neighbor 10.9.0.2 port $port as 65002; connect retry time 2; connect delay time 1;"
  b srv bird -f -c "$folder/b.conf" -s "$folder/b.ctl" -P "$folder/b.pid"
  wait_listen b "$port"
  bg a srv2 "${client_under[@]}" bird -f -c "$folder/a.conf" -s "$folder/a.ctl" -P "$folder/a.pid"
  servers+=(srv2)
}
routes() { # routes HOST: what it has of the other
  on "$1" birdc -r -s "$folder/$1.ctl" show route protocol them | grep -oE '^[0-9./]+ +unicast|^[0-9./]+ +unreachable|AS[0-9]+i|via [0-9.]+|from [0-9.]+'
}
has() { on "$1" birdc -r -s "$folder/$1.ctl" show route protocol them 2>/dev/null | grep -q "$2"; }
has_not() { ! has "$@"; }
talk() {
  retry 40 has a 198.51.100.0 && retry 40 has b 203.0.113.0
  routes a
  routes b
  on a birdc -r -s "$folder/a.ctl" show protocols them | awk '/^them/ { print $2, $4, $6 }'
  on b birdc -s "$folder/b.ctl" disable static1 | tail -n 1
  retry 40 has_not a 198.51.100.0 && echo withdrawn
  echo "$canary"
}
