# wget with python's web server: a page, a range, an error status, a refused connection.
needs='wget python3'
serve() {
  echo "$canary" >"$folder/www/page"
  b srv /usr/bin/python3 -I -m http.server -d "$folder/www" --bind :: "$port"
  wait_listen b "$port"
}
talk() {
  a wget -qO- "http://10.9.0.2:$port/page"
  a wget -qO- "http://[fd00::2]:$port/page"
  a wget -qO- "http://b:$port/page" "http://b:$port/page"
  a wget -qO- -t 1 "http://b:$port/none"
  a wget -nv -t 1 -O- http://10.9.0.2:9/
}
