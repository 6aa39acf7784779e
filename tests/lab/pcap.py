#!/usr/bin/env python3
"""Counts what a capture of the lab's link shows.

  pcap.py clear FILE TEXT        packets that carry TEXT in clear
  pcap.py esp FILE X Y           ESP packets between two hosts, either direction
  pcap.py non-esp FILE X Y       packets between them that are neither ESP, IKE, ARP nor neighbour discovery
  pcap.py list FILE              one line a packet, for people
  pcap.py mark FILE              nothing: what --live does is all
--live INTERFACE before these: the recording still runs; a marker frame is sent, and the file must
hold it before anything is counted. X and Y are a, b, c or an address. A file that cannot be understood is an error (status 1, nothing
printed), never a count.
"""

import os
import socket
import struct
import sys
import time

HOSTS = {
    name: {f"10.9.0.{n}", f"fd00::{n}", f"fe80::ff:fe00:{n}"}
    for n, name in enumerate("abc", start=1)
}
ETHERTYPE_IP, ETHERTYPE_IP6, ETHERTYPE_MARK = 0x0800, 0x86DD, 0x88B5
ICMP6, UDP, ESP = 58, 17, 50
ND_TYPES = range(133, 138)
IP6_EXTENSIONS = {0, 43, 60, 135}
FRAGMENT_HEADER = 44


class BadCapture(Exception):
    pass


def frames(data, partial=False):
    """The frames of a pcap file. A last record that is cut short is tolerated only when asked for."""
    if len(data) < 24:
        raise BadCapture("no pcap header")
    magic = data[:4]
    if magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        order = "<"
    elif magic in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d"):
        order = ">"
    else:
        raise BadCapture("not a pcap file")
    if struct.unpack(order + "I", data[20:24])[0] & 0xFFFF != 1:
        raise BadCapture("not Ethernet")
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            if partial:
                return
            raise BadCapture("cut short in a record header")
        _, _, kept, length = struct.unpack(order + "IIII", data[at : at + 16])
        if kept < length:
            raise BadCapture("a packet was not recorded whole")
        if at + 16 + kept > len(data):
            if partial:
                return
            raise BadCapture("cut short in a packet")
        yield data[at + 16 : at + 16 + kept]
        at += 16 + kept


def parse(frame):
    """(source, destination, protocol, payload, fragment key or None, first fragment) of an IP frame, else None."""
    if len(frame) < 14:
        return None
    kind = struct.unpack("!H", frame[12:14])[0]
    p = frame[14:]
    if kind == ETHERTYPE_IP:
        if len(p) < 20 or p[0] >> 4 != 4:
            raise BadCapture("broken IPv4 header")
        header = (p[0] & 15) * 4
        src, dst = p[12:16], p[16:20]
        flags = struct.unpack("!H", p[6:8])[0]
        key = (src, dst, p[9], p[4:6]) if flags & 0x3FFF else None
        return src, dst, p[9], p[header:], key, not flags & 0x1FFF
    if kind == ETHERTYPE_IP6:
        if len(p) < 40 or p[0] >> 4 != 6:
            raise BadCapture("broken IPv6 header")
        src, dst = p[8:24], p[24:40]
        proto, p, key, first = p[6], p[40:], None, True
        while first and (proto in IP6_EXTENSIONS or proto == FRAGMENT_HEADER) and len(p) >= 8:
            if proto == FRAGMENT_HEADER:
                key = (src, dst, p[4:8])
                first = not struct.unpack("!H", p[2:4])[0] & 0xFFF8
                proto, p = p[0], p[8:]
            else:
                proto, p = p[0], p[(p[1] + 1) * 8 :]
        return src, dst, proto, p, key, first
    return None


def classify(packet, fragments):
    """esp, ike, nd or other. Later fragments are what their first one was."""
    _, _, proto, p, key, first = packet
    if proto == ESP:
        return "esp"
    if not first:
        return fragments.get(key, "other")
    what = "other"
    if proto == UDP and len(p) >= 8:
        ports = struct.unpack("!HH", p[:4])
        if 4500 in ports:
            # RFC 3948: four zero octets mark IKE, one octet 0xff is a keepalive, the rest is ESP.
            what = "ike" if p[8:12] == bytes(4) or p[8:] == b"\xff" or len(p) < 8 + 16 else "esp"
        elif 500 in ports:
            what = "ike"
    elif proto == ICMP6 and p and p[0] in ND_TYPES:
        what = "nd"
    if key:
        fragments[key] = what
    return what


def packed(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address)
    except OSError:
        raise BadCapture(f"no such host: {address}") from None


def addresses(host):
    return {packed(address) for address in HOSTS.get(host, (host,))}


def between(data, x, y):
    """The classes of the packets between two hosts."""
    xs, ys, fragments = addresses(x), addresses(y), {}
    for frame in frames(data):
        packet = parse(frame)
        if packet is None:
            continue
        what = classify(packet, fragments)
        if (packet[0] in xs and packet[1] in ys) or (packet[0] in ys and packet[1] in xs):
            yield what


def count_clear(data, text):
    if not text:
        raise BadCapture("no text to look for")
    return sum(text in f[14:] for f in frames(data) if f[12:14] != struct.pack("!H", ETHERTYPE_MARK))


def count_esp(data, x, y):
    return sum(what == "esp" for what in between(data, x, y))


def count_non_esp(data, x, y):
    return sum(what == "other" for what in between(data, x, y))


def mark(path, interface):
    token = b"latchkey lab marker " + os.urandom(16)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s, open(path, "rb") as f:
        s.bind((interface, 0))
        source = s.getsockname()[4]
        frame = b"\xff" * 6 + source + struct.pack("!H", ETHERTYPE_MARK) + token
        seen, end, again = b"", time.monotonic() + 20, 0.0
        while time.monotonic() < end:
            if time.monotonic() >= again:
                s.send(frame)
                again = time.monotonic() + 1
            seen = seen[-len(frame) :] + f.read()
            if token in seen:
                break
            time.sleep(0.005)
        else:
            raise BadCapture(f"the marker did not arrive in {path}")
    # tcpdump writes a record in one piece, but wait for a whole one all the same.
    for _ in range(200):
        try:
            with open(path, "rb") as f:
                for _frame in frames(f.read()):
                    pass
            return
        except BadCapture:
            time.sleep(0.01)
    raise BadCapture(f"{path} stays incomplete")


def list_packets(data):
    fragments = {}
    for frame in frames(data):
        packet = parse(frame)
        if packet is None:
            print(frame[6:12].hex(":"), frame[:6].hex(":"), "type", frame[12:14].hex(), len(frame))
        else:
            ends = [socket.inet_ntop(socket.AF_INET6 if len(p) == 16 else socket.AF_INET, p) for p in packet[:2]]
            print(*ends, classify(packet, fragments), "proto", packet[2], len(frame))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def main(argv):
    args = argv[1:]
    try:
        interface = None
        if args[0] == "--live":
            interface = args[1]
            args = args[2:]
        command, path, *rest = args
        if interface:
            mark(path, interface)
        if command == "clear":
            (text,) = rest
            print(count_clear(read(path), os.fsencode(text)))
        elif command == "esp":
            x, y = rest
            print(count_esp(read(path), x, y))
        elif command == "non-esp":
            x, y = rest
            print(count_non_esp(read(path), x, y))
        elif command == "list":
            list_packets(read(path))
        elif command != "mark":
            raise IndexError
    except (IndexError, ValueError):
        print(__doc__, file=sys.stderr)
        return 2
    except (BadCapture, OSError) as e:
        print(f"lab: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
