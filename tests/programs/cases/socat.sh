# socat with a fork for each connection: half-close, much data both ways, v4 and v6, a refused connect.
needs=socat
serve() {
  b srv socat "TCP6-LISTEN:$port,ipv6only=0,fork,reuseaddr,backlog=50" EXEC:cat
  wait_listen b "$port"
}
talk() {
  head -c 400000 /dev/zero | tr '\0' s >"$folder/large"
  echo "$canary" | a socat -t 20 - "TCP4:10.9.0.2:$port"
  echo "$canary" | a socat -t 20 - "TCP6:[fd00::2]:$port"
  echo "$canary" | a socat -t 20 - "TCP4:10.9.0.2:$port,sourceport=$((port + 1)),reuseaddr"
  a socat -t 20 - "TCP4:10.9.0.2:$port" <"$folder/large" | md5sum
  a socat -u - TCP6:b:8999 </dev/null | sed 's/^[0-9/]* [0-9:]* //; s/\[[0-9]*\]//'
  a socat -u - TCP4:10.9.0.2:9 </dev/null | sed 's/^[0-9/]* [0-9:]* //; s/\[[0-9]*\]//'
}
