# git with its own daemon: refs, a clone with its children, a push that is refused. A branch's name is the canary.
needs=git
serve() {
  local work=$folder/work
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$folder
  git init -q -b main "$work"
  seq 20000 >"$work/numbers"
  git -C "$work" add numbers
  git -C "$work" -c user.name=n -c user.email=n@example commit -q -m one --date=2001-01-01T00:00:00Z
  git clone -q --bare "$work" "$folder/www/repository"
  git -C "$folder/www/repository" branch "$canary"
  b srv git daemon --export-all --base-path="$folder/www" --port="$port" --reuseaddr "$folder/www"
  wait_listen b "$port"
}
talk() {
  a git ls-remote --heads "git://10.9.0.2:$port/repository" | cut -f 2-
  a git ls-remote --heads "git://[fd00::2]:$port/repository" | cut -f 2-
  a git clone -q "git://b:$port/repository" "$folder/clone"
  md5sum <"$folder/clone/numbers"
  git -C "$folder/clone" branch more
  a git -C "$folder/clone" push -q origin more
  a git ls-remote git://10.9.0.2:9/repository
}
