#!/usr/bin/env python3
"""Tests of pcap.py: hand-made captures, counted."""

import socket
import struct
import unittest

import pcap

A4, B4, C4 = (socket.inet_aton(f"10.9.0.{n}") for n in (1, 2, 3))
A6, B6 = (socket.inet_pton(socket.AF_INET6, f"fd00::{n}") for n in (1, 2))
ESP_DATA = struct.pack("!II", 0x1001, 1) + bytes(range(40))


def capture(*frames, order="<", magic=0xA1B2C3D4, link=1):
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for frame in frames:
        out += struct.pack(order + "IIII", 1, 2, len(frame), len(frame)) + frame
    return out


def ether(kind, payload):
    return b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + struct.pack("!H", kind) + payload


def v4(src, dst, proto, payload, ident=1, fragment=0, options=b""):
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), ident, fragment, 64, proto, 0)
    return ether(0x0800, head + src + dst + options + payload)


def v6(src, dst, proto, payload):
    return ether(0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + src + dst + payload)


def udp(sport, dport, payload):
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


class Count(unittest.TestCase):
    def counts(self, *frames, x="a", y="b", **kw):
        data = capture(*frames, **kw)
        return pcap.count_esp(data, x, y), pcap.count_non_esp(data, x, y)

    def test_esp(self):
        self.assertEqual(self.counts(v4(A4, B4, 50, ESP_DATA), v4(B4, A4, 50, ESP_DATA), v6(A6, B6, 50, ESP_DATA)), (3, 0))

    def test_other_hosts_do_not_count(self):
        frames = v4(A4, C4, 50, ESP_DATA), v4(C4, B4, 6, bytes(20))
        self.assertEqual(self.counts(*frames), (0, 0))
        self.assertEqual(self.counts(*frames, y="c"), (1, 0))
        self.assertEqual(self.counts(*frames, x="10.9.0.3"), (0, 1))

    def test_clear_traffic(self):
        self.assertEqual(self.counts(v4(A4, B4, 6, bytes(20)), v6(B6, A6, 17, udp(1, 2, b"x")), v4(A4, B4, 1, b"\x03\x03")), (0, 3))
        self.assertEqual(self.counts(v6(A6, B6, 58, b"\x80\0")), (0, 1))
        self.assertEqual(self.counts(v4(A4, B4, 51, bytes(20))), (0, 1))  # AH does not hide anything

    def test_udp_encapsulation(self):
        self.assertEqual(self.counts(v4(A4, B4, 17, udp(4500, 4500, ESP_DATA))), (1, 0))
        self.assertEqual(self.counts(v4(A4, B4, 17, udp(4500, 4500, bytes(4) + b"ike" * 20))), (0, 0))
        self.assertEqual(self.counts(v4(A4, B4, 17, udp(4500, 4500, b"\xff"))), (0, 0))
        self.assertEqual(self.counts(v4(A4, B4, 17, udp(500, 500, b"ike" * 20))), (0, 0))
        self.assertEqual(self.counts(v6(A6, B6, 17, udp(31000, 4500, ESP_DATA))), (1, 0))

    def test_neighbour_discovery_and_arp(self):
        self.assertEqual(self.counts(v6(A6, B6, 58, b"\x87\0"), v6(B6, A6, 58, b"\x88\0"), ether(0x0806, bytes(28))), (0, 0))

    def test_fragments_are_what_the_first_one_was(self):
        esp = v4(A4, B4, 50, ESP_DATA, fragment=0x2000), v4(A4, B4, 50, b"rest", fragment=5)
        self.assertEqual(self.counts(*esp), (2, 0))
        ike = v4(A4, B4, 17, udp(500, 500, bytes(40)), ident=7, fragment=0x2000), v4(A4, B4, 17, b"rest", ident=7, fragment=6)
        self.assertEqual(self.counts(*ike), (0, 0))
        stray = v4(A4, B4, 17, b"rest", ident=8, fragment=6)
        self.assertEqual(self.counts(*ike, stray), (0, 1))

    def test_v6_extension_headers(self):
        fragment = struct.pack("!BBHI", 50, 0, 1, 99)
        self.assertEqual(self.counts(v6(A6, B6, 44, fragment + ESP_DATA)), (1, 0))
        options = bytes([50, 0, 1, 4, 0, 0, 0, 0])
        self.assertEqual(self.counts(v6(A6, B6, 60, options + ESP_DATA)), (1, 0))
        options = bytes([6, 0, 1, 4, 0, 0, 0, 0])
        self.assertEqual(self.counts(v6(A6, B6, 0, options + bytes(20))), (0, 1))

    def test_v4_options(self):
        self.assertEqual(self.counts(v4(A4, B4, 17, udp(500, 500, bytes(40)), options=bytes(8))), (0, 0))

    def test_clear_text(self):
        frames = v4(A4, B4, 6, b"..canary.."), v4(A4, B4, 50, ESP_DATA), v6(A6, B6, 17, b"canary" * 2), ether(0x0806, b"canary")
        self.assertEqual(pcap.count_clear(capture(*frames), b"canary"), 3)
        self.assertEqual(pcap.count_clear(capture(*frames), b"\x02\0\0\0\0\x02"), 0)  # addresses are no payload
        self.assertEqual(pcap.count_clear(capture(ether(0x88B5, b"canary")), b"canary"), 0)
        with self.assertRaises(pcap.BadCapture):
            pcap.count_clear(capture(*frames), b"")

    def test_byte_orders_and_nanoseconds(self):
        self.assertEqual(self.counts(v4(A4, B4, 50, ESP_DATA), order=">"), (1, 0))
        self.assertEqual(self.counts(v4(A4, B4, 50, ESP_DATA), magic=0xA1B23C4D), (1, 0))

    def test_what_cannot_be_trusted_is_no_count(self):
        whole = capture(v4(A4, B4, 50, ESP_DATA))
        short = whole[:24] + struct.pack("<IIII", 1, 2, 10, 1500) + bytes(10)
        for data in (b"", b"x" * 40, whole[:-1], whole + b"\0\0", short, capture(link=113), capture(ether(0x0800, b"\x60"))):
            with self.assertRaises(pcap.BadCapture):
                pcap.count_esp(data, "a", "b")
        with self.assertRaises(pcap.BadCapture):
            pcap.count_esp(whole, "a", "d")


if __name__ == "__main__":
    unittest.main()
