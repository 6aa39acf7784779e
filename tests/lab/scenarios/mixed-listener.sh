# One listener that protects some peers and serves others in clear, as its rules say, dual-stack.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_header "$LAB/mixed.toml" discard
cat >>"$LAB/mixed.toml" <<'END'
[peer.alice]
id = ["alice"]
[[rule]]
direction = "in"
local_port = [8080]
remote = ["10.9.0.3", "fd00::3"]
action = "bypass"
[[rule]]
direction = "in"
local_port = [8080]
remote = ["10.9.0.1", "fd00::1"]
action = "protect"
protection = "strong"
peer = "alice"
END
policy_out "$LAB/out.toml" 8080 bob
manual_sa a b 7 alice bob
ip -n c addr add 10.9.0.33/24 dev eth0
for host in a b; do spd_save $host; start_broker $host; done
capture wire
serve b srv "$LAB/mixed.toml" :: 8080
for address in 10.9.0.2 fd00::2; do
  expect_eq "c in clear at $address" "$(once c "connect $address 8080" 'echo bypassed' | tail -n 1)" "= echo: bypassed"
  refuses_clear a $address 8080
  latched a "cli-$address" "$LAB/out.toml" "connect $address 8080"
  expect "cli-$address" ok
  want "cli-$address" 'echo canary-mixed' canary-mixed
done
check "c is seen in clear" [ "$(clear_octets wire bypassed)" -ge 2 ]
expect_eq "another address of c is discarded" "$(once c 'timeout 1.5' 'connect 10.9.0.2 8080 0 10.9.0.33' | tail -n 1)" "= connect: timeout"
expect_eq "no answer to it" "$(packets wire 'src port 8080 and dst host 10.9.0.33')" 0
want_latches b 2 'ESTABLISHED 8080 .* alice bob transport aes-gcm-16:256 -'
expect_eq "no canary in clear" "$(clear_octets wire canary-mixed)" 0
expect_eq "no answer in clear to a" "$(packets wire 'src port 8080 and dst host (10.9.0.1 or fd00::1)')" 0
for address in 10.9.0.2 fd00::2; do end "cli-$address"; done
end srv
for host in a b; do stop_broker $host; spd_unchanged $host; done
