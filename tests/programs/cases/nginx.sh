# nginx with two workers that drop root: sendfile, a reload in the middle, a graceful end.
needs='nginx curl'
serve() {
  echo "$canary" >"$folder/www/page"
  head -c 600000 /dev/zero | tr '\0' n >"$folder/www/large"
  cat >"$folder/conf" <<END
daemon off;
user www-data;
worker_processes 2;
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  sendfile on;
  server {
    listen $port;
    listen [::]:$port;
    root www;
    location /proxied { proxy_pass http://127.0.0.1:$port/page; }
  }
}
END
  b srv nginx -p "$folder/" -e stderr -c "$folder/conf"
  wait_listen b "$port"
}
talk() {
  a curl -sS "http://10.9.0.2:$port/page"
  a curl -sS "http://[fd00::2]:$port/page"
  a curl -sS "http://10.9.0.2:$port/large" | md5sum
  kill -HUP "$(cat "$LAB/srv.pid")" # new workers, with listeners that they inherit
  sleep 1
  a curl -sS "http://10.9.0.2:$port/page"
  a curl -sS -d "$canary" "http://[fd00::2]:$port/page" | grep -E 'title|^status'
  stop srv QUIT
  : >"$LAB/srv.stopped"
}
