# SPD entries of others that let clear packets in, of high priority, before and after a latched server listens.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
allow() { # allow ADD-OR-DELETE PORT PRIORITY [ADDRESS...]
  local doing=$1 port=$2 priority=$3 to any
  shift 3
  for to in "${@:-10.9.0.2}"; do
    any=0.0.0.0/0
    [[ $to != *:* ]] || any=::/0
    set -- xfrm policy "$doing" src "$any" dst "$to" proto tcp dport "$port" dir in
    [ "$doing" = delete ] || set -- "$@" priority "$priority" action allow
    ip -n b "$@" || fail "no SPD entry"
  done
}
both=(10.9.0.2 fd00::2)
allow add 8080 1 "${both[@]}"
allow add 8081 0 "${both[@]}"
allow add 8086 0
serve b srv8080 "$LAB/in.toml" :: 8080
serve b srv8081 "$LAB/in.toml" 0.0.0.0 8081
serve b srv8082 "$LAB/in.toml" :: 8082
serve b srv8083 "$LAB/in.toml" 10.9.0.2 8083
serve b srv8086 "$LAB/in.toml" :: 8086
allow add 8082 1 "${both[@]}"
allow add 8083 0 "${both[@]}"
# Of equal priority the older entry wins: where one that is there before beats the guards of a
# dual-stack listener in both families, the server must not listen at all; one that comes later does not.
allow add 8084 0 "${both[@]}"
latched b early "$LAB/in.toml" 'listen :: 8084'
expect early EACCES
want_refusal b conflict-spd
serve b srv8085 "$LAB/in.toml" :: 8085
allow add 8085 0 "${both[@]}"
for port in 8080 8081 8082 8083 8085 8086; do
  refuses_clear c 10.9.0.2 $port
  latched a "cli$port" "$LAB/out.toml" "connect 10.9.0.2 $port" "echo canary-$port"
  expect "cli$port" ok
  expect "cli$port" "canary-$port"
done
for port in 8080 8082 8085 8086; do refuses_clear c fd00::2 $port; done
want cli8080 'connect fd00::2 8080' ok
latched a cli8088 "$LAB/out.toml"
expect_eq "each server saw one client, one saw two" "$(grep -h accepted "$LAB"/srv*.log | wc -l)" 7
expect_eq "no clear client was answered" "$(packets wire 'src portrange 8080-8089')" 0
wire_protected wire a b canary-
for port in 8080 8081 8082 8083 8085 8086; do end "cli$port"; end "srv$port"; done
end early
for port in 8080 8081 8082 8083 8084 8085; do allow delete "$port" 0 "${both[@]}"; done
allow delete 8086 0
# Somebody replaces the guard itself: a clear client gets nothing all the same.
serve b srv8087 "$LAB/in.toml" :: 8087
selector=(src 0.0.0.0/0 dst 0.0.0.0/0 proto tcp dport 8087 dir in)
check "the guard is replaced" ip -n b xfrm policy update "${selector[@]}" priority 0 action allow
refuses_clear c 10.9.0.2 8087
want cli8088 'connect 10.9.0.2 8087' ok
want cli8088 'echo canary-8087' canary-8087
expect_eq "still nobody in clear was answered" "$(packets wire 'src portrange 8080-8089')" 0
end cli8088
end srv8087
want_latches b 0 '.*'
ip -n b xfrm policy delete "${selector[@]}" 2>/dev/null # unless the broker took it for its own
stop_pair
