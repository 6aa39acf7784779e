# Datagrams of two peers' SAs that come in one burst: the kernel merges them for UDP_GRO, as if all came under the first one's; to a held or latched socket they come one by one, and the other peer's not at all.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

policy_in "$LAB/in.toml" '"8080-8089"' alice carol
policy_out "$LAB/out.toml" '9000' alice
sed -i 's/protocol = "tcp"/protocol = "udp"/' "$LAB/in.toml" "$LAB/out.toml"
manual_sa a b 7 alice bob
manual_sa c b 9 carol bob
start_broker b
capture wire

# a has carol's key too. What it sends goes under her SA or alice's, by its mark, in one burst.
key=$(ip -n b xfrm state list src 10.9.0.3 dst 10.9.0.2 | sed -n 's/.*aead /aead /p')
spi=$(ip -n b xfrm state | grep -A1 '^src 10.9.0.3 dst 10.9.0.2' | sed -n 's/.* spi \(0x[0-9a-f]*\) .*/\1/p')
# shellcheck disable=SC2086
ip -n a xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi "$spi" reqid 9 mode transport replay-window 32 $key ||
  fail "no SA of carol's at a"
for i in 1:7 2:9; do
  ip -n a xfrm policy add src 10.9.0.1 dst 10.9.0.2 proto udp dir out mark "${i%:*}" \
    tmpl proto esp reqid "${i#*:}" mode transport || fail "no policy on a"
done
tc -n a qdisc add dev eth0 root netem slot 100ms 100ms packets 50 || fail "no bursts"
# The kernel hands ESP of transport mode to GRO once decrypted, as it always does that of tunnel mode; a veth only what is not
# merged already.
modprobe -a esp4_offload esp6_offload || fail "no GRO of ESP"
ethtool -K w-b tso off || fail "w-b: no tso off"
on b ethtool -K eth0 gro on || fail "b: no gro"

sock a cli 'udp-bind 0.0.0.0 9000'
expect cli ok
burst() { # burst PORT: two of hers, two of the other's, by turns
  want cli "udp-by-turns 10.9.0.2 $1 2 1 canary-alice 2 canary-carol" ok
}

sock b bare 'udp-bind 0.0.0.0 8090' udp-gro
for i in 1 2; do expect bare ok; done
burst 8090
want bare recv-merged canary-alice+canary-carol+canary-alice+canary-carol

# hears_alice NAME: hers, one by one, and nothing else.
hears_alice() {
  for i in 1 2; do want "$1" recv-merged canary-alice; done
  want "$1" recv-merged timeout
}

# Asked for before the socket is held, and after.
latched b early "$LAB/in.toml" 'timeout 3' 'udp-new 10.9.0.2' udp-gro 'udp-bind-now 0.0.0.0 8080'
for i in 1 2 3 4; do expect early ok; done
burst 8080
hears_alice early
latched b late "$LAB/in.toml" 'timeout 3' 'udp-bind 0.0.0.0 8081' udp-gro
for i in 1 2 3; do expect late ok; done
burst 8081
hears_alice late
want late 'udp-gro 0' ok
burst 8081
hears_alice late

# A connected one, which its own policy holds to her.
latched b peer "$LAB/out.toml" 'timeout 3' 'udp 10.9.0.1 9000 8200' udp-gro
for i in 1 2 3; do expect peer ok; done
burst 8200
hears_alice peer

# A second before alice's in the burst.
want cli 'udp-by-turns 10.9.0.2 8081 1 2 canary-carol 1 canary-alice 1 canary-alice' ok
hears_alice late

expect_eq "nothing of ours in clear" "$(clear_octets wire canary)" 0
expect_eq "nothing but ESP between a and b" "$(non_esp wire a b)" 0
