#!/usr/bin/python3
"""A broker for tests of the command line: answers kOpen, kList, kShow, kBreak, kResume and kWatch
(shim/wire/messages.h).

Started as latchkeyd would be: [--private] --socket PATH [--run-dir DIR]. Latches 3 and 8 exist; a
session is refused when its program's name ends in "refused". What a kOpen brought is written to
PATH.seen. Latch 8 may be broken, none resumed. A watcher hears of three changes of latch 8, a fourth
that is damaged when PATH.damage is there, and its end when PATH.end is there. With the environment's or the run-dir's say nothing: it knows no kernel and no policy.
"""
import argparse
import array
import os
import socket
import struct

HEADER = struct.Struct("=IHHII")
MAGIC = 0x3159454B
OPEN, LIST, SHOW, BREAK, RESUME, WATCH, FENCE = 1, 16, 17, 21, 22, 23, 24
OPENED, LATCH, DONE, EVENT, FENCED = 65, 68, 72, 73, 74
LIMIT, UNSUPPORTED, BAD_REQUEST = 21, 23, 24
ENDPOINT = struct.Struct("=HHI16s")
RECORD = struct.Struct("=Q6BH24s24s24s24s5IHBBQ256s256s64s64s64s64s64s256s2Q")


def endpoint(address, port):
    return ENDPOINT.pack(socket.AF_INET, port, 0, socket.inet_aton(address) + bytes(12))


def record(latch):
    if latch == 0:
        return RECORD.pack(*([0] * 8), *([bytes(24)] * 4), *([0] * 9), *([b""] * 8), 0, 0)
    state = 1 if latch == 3 else 2
    listener = latch == 3
    return RECORD.pack(
        latch, state, 6, 0 if listener else 50, 255 if listener else 0, 1, 0, 0,
        endpoint("10.9.0.1", 80), bytes(24) if listener else endpoint("10.9.0.2", 40000),
        bytes(24), bytes(24), 0 if listener else 42, 0, 0, 99, 0, 256, 1, 0, 1700000000,
        b"" if listener else b"b.example\x1b[2J", b"", b"", b"" if listener else b"aes-gcm-16", b"",
        b"web", b"server", b"/usr/sbin/nginx", 0, 0)


def event(serial, time, before, stalled=0, state=2, reason=0, direction=2):
    latch = bytearray(record(8))
    latch[8], latch[14] = state, reason
    head = struct.pack("=QBBB5x", time, before, stalled, direction)
    inner = HEADER.pack(MAGIC, 1, LATCH, HEADER.size + len(latch), serial) + latch
    return HEADER.pack(MAGIC, 1, EVENT, HEADER.size + len(head) + len(inner), serial) + head + inner


def watch(connection, serial, path):
    connection.send(event(serial, 1700000000, 2))
    connection.send(event(serial, 1700000001, 2, stalled=1))
    connection.send(event(serial, 1700000002, 2, state=3, reason=14))
    if os.path.exists(path + ".damage"):
        connection.send(event(serial, 1700000003, 9))
    if not os.path.exists(path + ".end"):
        connection.recv(1)


def answer(kind, body, descriptors, path):
    if kind == OPEN:
        program = body[8:264].split(b"\0")[0]
        flags = struct.unpack_from("=I", body)[0]
        policy = b"-"
        if len(descriptors) == 2:
            policy = os.pread(descriptors[0], 4096, 0).split(b"\n")[0]
        with open(f"/proc/self/fdinfo/{descriptors[-1]}") as info:
            pid = [line.split()[1] for line in info if line.startswith("Pid:")]
        with open(path + ".seen", "w") as seen:
            seen.write(f"{flags} {program.decode()} {pid[0]} {policy.decode()}\n")
        if program.endswith(b"refused"):
            return OPENED, struct.pack("=H6x32s1024s", 1, b"", b"not today")
        # PATH.unfenced: there can be no fence.
        fenced = flags & 8 != 0 and not os.path.exists(path + ".unfenced")
        if flags & 16 and not fenced:
            return OPENED, struct.pack("=H6x32s1024s", UNSUPPORTED, b"", b"no cgroups")
        return OPENED, struct.pack("=HH4x32s1024s", 0, fenced, bytes(range(1, 33)),
                                   b"" if fenced else b"no cgroups")
    wanted = struct.unpack_from("=Q", body)[0]
    if kind == BREAK:
        return DONE, struct.pack("=H6x", 0 if wanted == 8 else BAD_REQUEST)
    if kind == RESUME:
        return DONE, struct.pack("=H6x", BAD_REQUEST)
    if kind == WATCH:
        return DONE, struct.pack("=H6x", LIMIT if os.path.exists(path + ".limit") else 0)
    if kind == FENCE:
        # PATH.fences: session 1 is fenced, 2 is behind a fence alone, 3 has none, 4 can have none, 5
        # and 6 were run by hand.
        session = wanted + 1 if wanted < 6 and os.path.exists(path + ".fences") else 0
        return FENCED, struct.pack("=QIBBBx256s256s256s", session, 0, (0, 1, 1, 0, 2, 0, 0)[session],
                                   session < 5, session == 2, b"/usr/bin/app%d" % min(session, 5), b"app.toml",
                                   b"no cgroups" if session == 4 else b"")
    if kind == LIST:
        return LATCH, record(next((i for i in (3, 8) if i > wanted), 0))
    return LATCH, record(wanted if wanted in (3, 8) else 0)


def serve(connection, path):
    while True:
        octets, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(8))
        if not octets:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        _, version, kind, _, serial = HEADER.unpack_from(octets)
        asked = kind
        kind, body = answer(kind, octets[HEADER.size:], descriptors, path)
        for descriptor in descriptors:
            os.close(descriptor)
        size = HEADER.size + len(body)
        connection.send(HEADER.pack(MAGIC, version, kind, size, serial) + body)
        if asked == WATCH:
            try:
                watch(connection, serial, path)
            except ConnectionError:
                pass  # it has heard enough
            return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--run-dir")
    parser.add_argument("--private", action="store_true")
    options = parser.parse_args()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(options.socket)
    listener.listen(8)
    while True:
        connection, _ = listener.accept()
        with connection:
            serve(connection, options.socket)


main()
