# bash's /dev/tcp: a descriptor kept over forks and subshells, read and written by other programs.
needs='bash socat'
serve() {
  b srv socat "TCP4-LISTEN:$port,fork,reuseaddr" EXEC:cat
  wait_listen b "$port"
}
talk() {
  # shellcheck disable=SC2016
  a env -u BASH_ENV bash -c '
    exec 5<>"/dev/tcp/10.9.0.2/$1" || exit 3
    echo "$2 1" >&5
    read -r line <&5 && echo "$line"
    (echo "$2 2" >&5)
    head -n 1 <&5
    exec 5>&-
    (: 6<>/dev/tcp/10.9.0.2/9) 2>&1 | sed "s/.*line [0-9]*: //"
    exit 4' bash "$port" "$canary"
}
