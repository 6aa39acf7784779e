# A host gets another identity while a server of its listens: what was latched under the old one ends, and who comes from then on is latched under the new one, without a restart of the server.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

policy_in "$LAB/in.toml" '"8080-8089"' a.lab
policy_out "$LAB/out.toml" '"8080-8089"' b.lab other.lab
IKE_REMOTE='*.lab' ike a
ike b
start_broker a
start_broker b
capture wire
serve b srv "$LAB/in.toml" :: 8080
latched b slow "$LAB/in.toml" 'listen 0.0.0.0 8081'
expect slow ok
latched a old "$LAB/out.toml" 'timeout 60' 'connect 10.9.0.2 8080' 'echo canary-old'
expect old ok
expect old ok
expect old canary-old
latched a queued "$LAB/out.toml" 'connect 10.9.0.2 8081'
expect queued ok
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 -'
tell old recv

ike_down a a-b
IKE_ID=other ike b
latched a new "$LAB/out.toml" 'timeout 30' 'connect 10.9.0.2 8080' 'echo canary-new'
expect new ok
expect new ok
expect new canary-new
expect old ECONNRESET
want_latches b 1 'ESTABLISHED 8080 10\.9\.0\.1 a\.lab other\.lab transport aes-gcm-16:256 -'
want_latches b 1 'BROKEN 8080 10\.9\.0\.1 a\.lab b\.lab transport aes-gcm-16:256 conflict-sa'
want_latches a 2 'BROKEN [0-9]+ 10\.9\.0\.2 b\.lab a\.lab transport aes-gcm-16:256 conflict-sa'

# What was queued before is nobody's: it is refused, and the next one gets in.
tell slow accept
want_refusal b ambiguous-peer
latched a later "$LAB/out.toml" 'connect 10.9.0.2 8081' 'send canary-later'
expect later ok
expect later ok
expect slow 10.9.0.1
want slow recv canary-later
wire_protected wire a b canary
