# redis-server and redis-cli: single commands, a pipeline, several clients at once.
needs='redis-server redis-cli'
serve() {
  b srv redis-server --port "$port" --bind 0.0.0.0 :: --save '' --protected-mode no --dir "$folder"
  wait_listen b "$port"
}
talk() {
  local i
  a redis-cli -h 10.9.0.2 -p "$port" set key "$canary"
  a redis-cli -h fd00::2 -p "$port" get key
  for i in $(seq 200); do echo "incr counter"; done | a redis-cli -h b -p "$port" | tail -n 2
  a redis-benchmark -h 10.9.0.2 -p "$port" -q -t set -n 400 -c 20 | grep -c 'requests per second'
  a redis-cli -h 10.9.0.2 -p 9 ping
}
