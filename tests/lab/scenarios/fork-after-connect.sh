# A forked child uses the connection it inherited, and makes its own; the parent goes, and the latch stays.
set -u
# shellcheck source=../programs/product.sh
. "$(dirname "$0")/../programs/product.sh"

start_pair
capture wire
pair_connects 8080 :: 10.9.0.2 canary-fork
want cli8080 'in-child echo canary-fork-child' 'echo: canary-fork-child'
want cli8080 'in-child connect fd00::2 8080' 'connect: ok'
want cli8080 'in-child in-child in-child connect 10.9.0.2 8080' 'in-child: in-child: connect: ok'
want cli8080 'echo canary-fork-parent' canary-fork-parent
want_latches a 1 '.*'
# The parent is gone; the child holds the connection.
want cli8080 daemonize ok
want cli8080 'echo canary-fork-heir' canary-fork-heir
want cli8080 'in-child connect fd00::2 8080' 'connect: ok'
want_latches a 1 'ESTABLISHED .*'
wire_protected wire a b canary-fork
tell cli8080 recv
impostor
expect cli8080 ECONNRESET
want_latches a 1 'BROKEN .* conflict-sa'
want cli8080 'in-child read' 'read: ECONNRESET'
expect_eq "no payload in clear" "$(clear_payload wire)" 0
