# curl with python's web server: pages, an error status, a keep-alive, a refused connection.
needs='curl python3'
serve() {
  echo "$canary" >"$folder/www/page"
  b srv /usr/bin/python3 -I -m http.server -d "$folder/www" --bind :: "$port"
  wait_listen b "$port"
}
talk() {
  a curl -sS "http://10.9.0.2:$port/page"
  a curl -sS "http://[fd00::2]:$port/page"
  a curl -sS "http://b:$port/page" "http://b:$port/page"
  a curl -sSI "http://b:$port/page" | grep -viE '^(date|last-modified|content-length):'
  a curl -sSf "http://10.9.0.2:$port/none"
  a curl -sSv http://10.9.0.2:9/ | grep -E 'refused|^status'
  a curl -sSv http://10.9.0.2:8999/ | grep -E 'refused|^status'
  a curl -sS http://nobody.invalid/
}
