# A server that listens as root and whose workers drop it before they accept.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
control wire
bg b workers latchkey run -p "$LAB/in.toml" -- "${python[@]}" "$programs/workers.py" :: 8080 65534 2
wait_listen b 8080
latched a cli "$LAB/out.toml" 'connect 10.9.0.2 8080' 'echo canary-worker-4'
latched a six "$LAB/out.toml" 'connect fd00::2 8080' 'echo canary-worker-6'
expect cli ok
expect cli canary-worker-4
expect six ok
expect six canary-worker-6
expect_eq "the workers are nobody's" "$(grep -c 'accepted.*by uid 65534' "$LAB/workers.log")" 2
want_latches b 2 'ESTABLISHED 8080 .* alice bob transport aes-gcm-16:256 -'
refuses_clear c 10.9.0.2 8080
wire_protected wire a b canary-worker
# A client that drops root and then connects again; and the impostor reaches what a worker holds.
end six
want cli close ok
want cli 'setuid 65534' ok
want cli 'connect fd00::2 8080' ok
want cli 'echo canary-worker-dropped' canary-worker-dropped
tell cli recv
impostor
expect cli ECONNRESET
check "so does the worker" retry 5 grep -q 'error ECONNRESET' "$LAB/workers.log"
want_refusal b conflict-sa
expect_eq "no canary in clear" "$(clear_octets wire canary-worker)" 0
expect_eq "no payload in clear" "$(clear_payload wire)" 0
