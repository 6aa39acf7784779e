# For scenarios that drive datagrams-probe: the kernel's part of unconnected UDP without a broker.
# shellcheck shell=bash

start_probe() { # start_probe HOST
  coproc probe { on "$1" datagrams-probe /sys/fs/bpf/latchkey 2>&1; }
  probe_in=${probe[1]} probe_out=${probe[0]} probe_pid=$probe_PID
  expect_eq "the filter is there" "$(answer)" "ready "
}
end_probe() {
  eval "exec $probe_in>&-"
  wait "$probe_pid" 2>/dev/null
}
answer() {
  local line
  IFS= read -r -t 20 line <&"$probe_out" || fail "no answer"
  printf '%s' "$line"
}
ask() { # ask COMMAND: what is answered; not in a pipeline
  echo "$*" >&"$probe_in" || fail "the probe is gone"
  answer
}
is() { expect_eq "$1" "$(ask "$1")" "$2"; } # is COMMAND ANSWER

cat >"$LAB/send.py" <<'END'
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.bind(("", int(sys.argv[4])))
udp.sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2])))
END
# send HOST ADDRESS TEXT [SOURCE-PORT]: a datagram to port 5000
send() { on "$1" python3 "$LAB/send.py" "$2" 5000 "$3" "${4:-0}" || fail "cannot send"; }

shown() { # shown SPI: what the kernel says of a's SA, but for its mark and the last use
  on a ip -s -d xfrm state list spi "$1" | sed -E 's/output-mark [^ ]*( mask [^ ]*)?//; s/ +$//' | sed '/^[[:space:]]*$/d'
}
