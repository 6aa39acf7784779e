# latchkey doctor on a host with charon and the broker: ok for ESP, the broker and charon; each child by name, with what its reqid is good for.
set -u
# shellcheck source=../programs/keys.sh
. "$(dirname "$0")/../programs/keys.sh"

says() { grep -qE -e "^$1" "$LAB/doctor" || fail "doctor does not say \"$1\": $(cat "$LAB/doctor")"; echo "good: $1"; }
doctor() { on a latchkey doctor >"$LAB/doctor" || fail "doctor finds something bad: $(cat "$LAB/doctor")"; }

if on a latchkey doctor >"$LAB/doctor"; then fail "all is well without a broker"; fi
says 'BAD +no broker at /run/'
says 'note +no charon at /run/charon.vici'

start_key_pair
# A child without a reqid of its own, for another port, and a shunt.
_ike_host a
sed -n '/^  a-b {/,/^  }$/p' "$REPLY/etc/swanctl/conf.d/lab.conf" >"$LAB/a-b"
{
  echo 'connections {'
  sed 's/a-b {/free {/; /reqid/d; /mode = transport/a remote_ts = dynamic[tcp/9999]' "$LAB/a-b"
  echo '  shunt { children { shunt { mode = pass
    local_ts = 192.0.2.1/32
    remote_ts = 192.0.2.2/32
  } } } }'
} >"$REPLY/etc/swanctl/conf.d/free.conf"
on a swanctl --load-all --noprompt >"$LAB/load" 2>&1 || fail "no configuration: $(cat "$LAB/load")"
check "the child with a fixed reqid is up" ike_up a a-b
check "the other as well" ike_up a free
doctor
cat "$LAB/doctor"
says 'ok .*ESP'
says 'ok +a broker answers at /run/'
says 'ok +charon answers at /run/charon\.vici'
says 'ok +child a-b\.a-b: its reqid is fixed \(65537\)'
says 'note +child free\.free: its reqid [0-9]+ may be one that charon allots'
says 'ok +latchkeyd \(process [0-9]+\) can hold packets back'
says 'ok +offload: none; the kernel itself does the work of 4 SAs'
says 'note +child a-c\.a-c: not up, .*: nothing, where its peer is away .*swanctl --initiate --child a-c$'
expect_eq "of the shunt it says nothing" "$(grep -c shunt "$LAB/doctor")" 0

# A broker that may not switch it, as a unit with ProtectKernelTunables alone has it.
stop_broker a
bg a broker-a unshare -m sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec latchkeyd'
retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-a.log" || fail "no broker: $(cat "$LAB/broker-a.log")"
want_logged a "the broker warns of it" 'warning: /proc/sys/net/core/xfrm_larval_drop: Read-only file system'
if on a latchkey doctor >"$LAB/doctor"; then fail "doctor finds nothing bad"; fi
says 'BAD +latchkeyd \(process [0-9]+\) may not write net\.core\.xfrm_larval_drop: .*ReadWritePaths'

# An ordinary user is told what was not tried.
on a setpriv --reuid=nobody --regid=nogroup --clear-groups latchkey doctor >"$LAB/doctor"
says "note +not root: charon's socket /run/charon\.vici was not tried"
