# rsync with its own daemon: a folder there and back, a module that does not exist.
needs=rsync
serve() {
  echo "$canary" >"$folder/www/page"
  seq 50000 >"$folder/www/numbers"
  printf 'use chroot = no\n[files]\npath = %s/www\nread only = no\nuid = root\ngid = root\n' "$folder" >"$folder/conf"
  b srv rsync --daemon --no-detach --config="$folder/conf" --port="$port" --log-file=/dev/null
  wait_listen b "$port"
}
talk() {
  a rsync -r "rsync://10.9.0.2:$port/files/" "$folder/there/"
  cat "$folder/there/page"
  md5sum <"$folder/there/numbers"
  echo more >"$folder/more"
  a rsync "$folder/more" "rsync://[fd00::2]:$port/files/"
  cat "$folder/www/more"
  a rsync "rsync://b:$port/none/" | sed 's/(code.*//'
  a rsync rsync://10.9.0.2:9/files/ | sed 's/(code.*//'
}
