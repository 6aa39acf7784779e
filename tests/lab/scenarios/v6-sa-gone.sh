# An IPv6 connection whose SAs never return: ECONNRESET, never EAGAIN or end of file, TCP_USER_TIMEOUT or not.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
serve b srv "$LAB/in.toml" :: 8080
for name in plain hasty hasty-read hasty-epoll; do
  latched a $name "$LAB/out.toml" 'connect fd00::2 8080'
  expect $name ok
  want $name 'echo canary-gone' canary-gone
done
latched a four "$LAB/out.toml" 'connect 10.9.0.2 8080' 'user-timeout 2000'
expect four ok
expect four ok
for name in hasty hasty-read hasty-epoll; do want $name 'user-timeout 2000' ok; done
sa_delete a b 7
for name in plain hasty hasty-read hasty-epoll four; do want $name 'send canary-into-the-void' ok; done
tell plain recv
tell hasty recv
tell hasty-read read
tell hasty-epoll epoll
tell four recv
for name in plain hasty hasty-read hasty-epoll four; do expect $name ECONNRESET 30; done
for name in plain hasty hasty-read four; do
  want $name recv ECONNRESET
  want $name 'send x' ECONNRESET
done
expect_eq "no canary in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP" "$(non_esp wire a b)" 0
check "there was ESP" [ "$(esp_packets wire a b)" -gt 0 ]
