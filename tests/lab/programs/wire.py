"""wire.py COMMAND ARG...: puts frames on the lab's link, as whoever is on the way could.

  replay CAPTURE FROM TO             every ESP packet of the capture from the one to the other, again; says how many
  udp FROM TO PORT PORT TEXT         a datagram in clear, from whatever address
  unreachable FROM TO CAPTURE        ICMP "port unreachable" about the last packet that TO sent to FROM
  refused FROM TO PORT PORT          the same about a datagram in clear of TO's PORT to FROM's PORT
  fragment BY FROM TO PORT PORT ID first|second   one half of a datagram of 1,000 octets, on the link to the card of the
                                     host that has 10.9.0.1 (TO is inside of a tunnel), or by a raw socket (BY: "raw")
  too-big FROM TO PORT PORT MTU      ICMP "fragmentation needed" about such a datagram

FROM and TO are IPv4 addresses 10.9.0.N, of udp IPv6 ones fd00::N too. The frame goes to TO's card.
"""

import os
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/..")
# pylint: disable=wrong-import-position
import pcap


def checksum(octets):
    total = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Link:
    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.socket.bind(("wire", 0))

    def send(self, source, destination, kind, packet):
        """To the card of the host with this number."""
        card = bytes((2, 0, 0, 0, 0))
        header = card + bytes((destination,)) + card + bytes((source,)) + struct.pack("!H", kind)
        self.socket.send(header + packet)

    def ip(self, source, destination, protocol, payload):
        src, dst = pcap.packed(source), pcap.packed(destination)
        if len(src) == 16:
            packet = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + src + dst + payload
            return self.send(src[-1], dst[-1], pcap.ETHERTYPE_IP6, packet)
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + src + dst
        packet = packet[:10] + struct.pack("!H", checksum(packet)) + packet[12:] + payload
        return self.send(src[-1], dst[-1], pcap.ETHERTYPE_IP, packet)


def datagram(source, destination, source_port, port, text):
    src, dst = pcap.packed(source), pcap.packed(destination)
    body = struct.pack("!HHHH", int(source_port), int(port), 8 + len(text), 0) + text
    pseudo = src + dst + struct.pack("!IHBB", len(body), 0, 0, pcap.UDP)
    return body[:6] + struct.pack("!H", checksum(pseudo + body) or 0xFFFF) + body[8:]


def quoted(source, destination, protocol, payload):
    """The head of an IPv4 packet, as an ICMP error quotes it."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0)
    return head + pcap.packed(source) + pcap.packed(destination) + payload[:64]


def read(capture):
    with open(capture, "rb") as file:
        return file.read()


def icmp(link, source, destination, code, value, quote):
    body = struct.pack("!BBHHH", 3, code, 0, 0, int(value)) + quote
    link.ip(source, destination, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def replay(link, capture, source, destination):
    count = 0
    for frame in pcap.frames(read(capture), partial=True):
        packet = pcap.parse(frame)
        if packet is None or packet[2] != pcap.ESP:
            continue
        if packet[0] == pcap.packed(source) and packet[1] == pcap.packed(destination):
            link.socket.send(frame)
            count += 1
    print(count)


def udp(link, source, destination, source_port, port, text):
    link.ip(source, destination, pcap.UDP, datagram(source, destination, source_port, port, text.encode()))


def unreachable(link, source, destination, capture):
    """What it quotes is ESP: all that anybody on the way has."""
    last = None
    for frame in pcap.frames(read(capture), partial=True):
        packet = pcap.parse(frame)
        if packet and packet[2] == pcap.ESP and packet[0] == pcap.packed(destination) \
                and packet[1] == pcap.packed(source):
            last = frame[14:]
    if last is None:
        sys.exit("wire.py: there is no such packet")
    icmp(link, source, destination, 3, 0, last[:84])


def refused(link, source, destination, source_port, port):
    body = datagram(destination, source, port, source_port, b"what nobody sent")
    icmp(link, source, destination, 3, 0, quoted(destination, source, pcap.UDP, body))


def too_big(link, source, destination, source_port, port, mtu):
    body = datagram(destination, source, port, source_port, b"what nobody sent")
    icmp(link, source, destination, 4, mtu, quoted(destination, source, pcap.UDP, body))


def fragment(link, by, source, destination, source_port, port, number, half):
    body = datagram(source, destination, source_port, port, b"<" + b"from-inside-" * 83 + b"-->")
    first = half == "first"
    body, place = (body[:504], 0x2000) if first else (body[504:], 504 // 8)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), int(number), place, 64, pcap.UDP, 0)
    head += pcap.packed(source) + pcap.packed(destination)
    packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
    if by == "raw":
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (destination, 0))
    else:
        link.send(pcap.packed(by)[-1], 1, pcap.ETHERTYPE_IP, packet)


COMMANDS = {"replay": replay, "udp": udp, "unreachable": unreachable, "refused": refused, "fragment": fragment,
            "too-big": too_big}
COMMANDS[sys.argv[1]](None if sys.argv[2] == "raw" else Link(), *sys.argv[2:])
