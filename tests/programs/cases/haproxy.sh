# haproxy with a master: a reload under way, by SIGUSR2, hands the listener over (SCM_RIGHTS); no request fails.
needs='haproxy curl'
configure() {
  cat >"$folder/conf" <<END
global
  stats socket $folder/admin level admin expose-fd listeners
  chroot $folder/www
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend them
  bind :::$port v4v6
  http-request return status 200 content-type text/plain string "$1 $canary"
END
}
serve() {
  configure one
  b srv haproxy -W -f "$folder/conf"
  wait_listen b "$port"
}
talk() {
  local i loop
  a curl -s "http://10.9.0.2:$port/"
  a curl -s "http://[fd00::2]:$port/"
  # shellcheck disable=SC2016
  a bash -c 'for i in $(seq 30); do curl -s "$1" || echo "curl: $?"; echo; done' bash "http://10.9.0.2:$port/" >"$folder/loop" &
  loop=$!
  configure two
  kill -USR2 "$(cat "$LAB/srv.pid")"
  retry 30 on a bash -c "curl -s http://10.9.0.2:9/; grep -q '^two' '$folder/loop'"
  wait "$loop"
  sed 's/^one/two/' "$folder/loop" | sort | uniq -c
  a curl -s "http://b:$port/"
  a curl -sS http://10.9.0.2:9/ | sed 's/after [0-9]* ms/after N ms/'
}
