# Programs as Debian ships them: curl, nginx with workers that drop root, python's web server; v4 and v6.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
mkdir "$LAB/web" "$LAB/nginx"
chmod 755 "$LAB" "$LAB/web"
echo canary-in-a-page >"$LAB/web/page"
head -c 3000000 /dev/urandom >"$LAB/web/large"
cat >"$LAB/nginx.conf" <<END
daemon off;
user www-data;
worker_processes 2;
pid $LAB/nginx/pid;
error_log $LAB/nginx/error.log;
events { worker_connections 64; }
http {
  access_log $LAB/nginx/access.log;
  client_body_temp_path $LAB/nginx/body;
  proxy_temp_path $LAB/nginx/proxy;
  fastcgi_temp_path $LAB/nginx/fastcgi;
  uwsgi_temp_path $LAB/nginx/uwsgi;
  scgi_temp_path $LAB/nginx/scgi;
  sendfile on;
  server { listen 8080; listen [::]:8080; root $LAB/web; }
}
END
bg b nginx latchkey run -p "$LAB/in.toml" -- nginx -c "$LAB/nginx.conf"
wait_listen b 8080
get() { # get CLIENT-COMMAND... URL
  on a latchkey run -p "$LAB/out.toml" -- curl -sS --max-time 20 "$@"
}
expect_eq "a page over v4" "$(get http://10.9.0.2:8080/page)" canary-in-a-page
expect_eq "a page over v6" "$(get 'http://[fd00::2]:8080/page')" canary-in-a-page
expect_eq "a page by name" "$(get http://b:8080/page)" canary-in-a-page
get -o "$LAB/got" 'http://10.9.0.2:8080/large'
check "a large file is whole" cmp "$LAB/got" "$LAB/web/large"
expect_eq "four at once on one connection" "$(get http://10.9.0.2:8080/page http://10.9.0.2:8080/page http://10.9.0.2:8080/page http://10.9.0.2:8080/page | wc -l)" 4
expect_eq "a page by name, in parallel" "$(get -Z http://b:8080/page 'http://[fd00::2]:8080/page' | wc -l)" 2
check "the workers are www-data's" on b sh -c 'ps -o user= -C nginx | grep -q www-data'
on c curl -sS --max-time 2 http://10.9.0.2:8080/page >"$LAB/clear" 2>&1
expect_eq "a clear curl" $? 28
wire_protected wire a b canary-in-a-page
check "there was a lot of ESP" [ "$(esp_packets wire a b)" -gt 1000 ]
end nginx

cd "$LAB/web" || fail cd
bg b web latchkey run -p "$LAB/in.toml" -- /usr/bin/python3 -m http.server --bind :: 8081
wait_listen b 8081
expect_eq "python's server over v4" "$(get http://10.9.0.2:8081/page)" canary-in-a-page
expect_eq "python's server over v6" "$(get 'http://[fd00::2]:8081/page')" canary-in-a-page
end web
want_latches b 0 '.*'
wire_protected wire a b canary-in-a-page
stop_pair
