# shellcheck shell=bash
# Recording the link, and counting what was seen there. The counting is pcap.py's.

# _lab_pcap COMMAND NAME ARG...: while the capture runs, pcap.py first sends a marker frame over the
# same bridge: when that is in the file, so is all that came before it.
_lab_pcap() {
  local command=$1 name=$2 live=() pid
  shift 2
  [ -e "$LAB/$name.pcap" ] || fail "no capture named $name" >&2
  if [ -e "$LAB/$name.capture" ]; then
    read -r pid <"$LAB/$name.capture"
    kill -0 "$pid" 2>/dev/null || fail "the capture $name died: $(cat "$LAB/$name.tcpdump")" >&2
    live=(--live wire)
  fi
  /usr/bin/python3 -I -S $_lab_home/guest/pcap.py "${live[@]}" "$command" "$LAB/$name.pcap" "$@" ||
    fail "the capture $name cannot be read" >&2
}

# capture NAME: records the link from now on into $LAB/NAME.pcap.
capture() {
  local name=$1 i
  rm -f "$LAB/$name.pcap" "$LAB/$name.capture"
  tcpdump -i wire -n -U --immediate-mode -B 131072 -s 0 -Z root -w "$LAB/$name.pcap" \
    </dev/null >/dev/null 2>"$LAB/$name.tcpdump" &
  echo $! >"$LAB/$name.capture"
  for ((i = 0; i < 200; i++)); do
    [ ! -s "$LAB/$name.pcap" ] || break
    kill -0 $! 2>/dev/null || break
    sleep 0.05
  done
  [ -s "$LAB/$name.pcap" ] || fail "capture $name: tcpdump does not start: $(cat "$LAB/$name.tcpdump")"
  _lab_pcap mark "$name"
}

# capture_stop NAME: ends the recording; nothing that was sent before is lost.
capture_stop() {
  local name=$1 pid i
  [ -e "$LAB/$name.capture" ] || fail "capture_stop: $name is not running"
  _lab_pcap mark "$name"
  pid=$(cat "$LAB/$name.capture")
  rm -f "$LAB/$name.capture"
  kill -TERM "$pid"
  for ((i = 0; i < 200; i++)); do
    [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || break
    sleep 0.05
  done
  wait "$pid" 2>/dev/null
  grep -q '^0 packets dropped by kernel' "$LAB/$name.tcpdump" ||
    fail "the capture $name is not complete: $(cat "$LAB/$name.tcpdump")"
}

# clear_octets NAME TEXT: prints the number of packets that carry TEXT in clear.
clear_octets() {
  _lab_pcap clear "$1" "$2"
}

# non_esp NAME HOST HOST: prints the number of packets between the two that are neither ESP nor
# IKE nor neighbour discovery. An address may stand for a host.
non_esp() {
  _lab_pcap non-esp "$1" "$2" "$3"
}

# esp_packets NAME HOST HOST: prints the number of ESP packets between the two.
esp_packets() {
  _lab_pcap esp "$1" "$2" "$3"
}
