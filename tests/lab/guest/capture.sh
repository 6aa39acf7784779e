# shellcheck shell=bash
# Recording the link, and counting what was seen there. The counting is pcap.py's.

_lab_pcap() {
  /usr/bin/python3 -I $_lab_home/guest/pcap.py "$@"
}

# _lab_settle NAME: everything sent so far is in the file, and the kernel dropped nothing. A marker
# frame goes over the same bridge; when it is in the file, so is all that came before it.
_lab_settle() {
  local name=$1 pid
  [ -e "$LAB/$name.pcap" ] || fail "no capture named $name"
  [ -e "$LAB/$name.capture" ] || return 0
  pid=$(cat "$LAB/$name.capture")
  kill -0 "$pid" 2>/dev/null || fail "the capture $name died: $(cat "$LAB/$name.tcpdump")"
  _lab_pcap mark "$LAB/$name.pcap" wire || fail "the capture $name does not record"
}

# capture NAME: records the link from now on into $LAB/NAME.pcap.
capture() {
  local name=$1 i
  rm -f "$LAB/$name.pcap" "$LAB/$name.capture"
  tcpdump -i wire -n -U --immediate-mode -B 16384 -s 0 -Z root -w "$LAB/$name.pcap" \
    </dev/null >/dev/null 2>"$LAB/$name.tcpdump" &
  echo $! >"$LAB/$name.capture"
  for ((i = 0; i < 200; i++)); do
    [ ! -s "$LAB/$name.pcap" ] || break
    kill -0 $! 2>/dev/null || break
    sleep 0.05
  done
  [ -s "$LAB/$name.pcap" ] || fail "capture $name: tcpdump does not start: $(cat "$LAB/$name.tcpdump")"
  _lab_settle "$name"
}

# capture_stop NAME: ends the recording; nothing that was sent before is lost.
capture_stop() {
  local name=$1 pid i
  [ -e "$LAB/$name.capture" ] || fail "capture_stop: $name is not running"
  _lab_settle "$name"
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
  _lab_settle "$1" >&2
  _lab_pcap clear "$LAB/$1.pcap" "$2"
}

# non_esp NAME HOST HOST: prints the number of packets between the two that are neither ESP nor
# IKE nor neighbour discovery. An address may stand for a host.
non_esp() {
  _lab_settle "$1" >&2
  _lab_pcap non-esp "$LAB/$1.pcap" "$2" "$3"
}

# esp_packets NAME HOST HOST: prints the number of ESP packets between the two.
esp_packets() {
  _lab_settle "$1" >&2
  _lab_pcap esp "$LAB/$1.pcap" "$2" "$3"
}
