"""What sock.py asks a socket of at level SOL_LATCHKEY (latchkey.h)."""

import socket
import struct


class Options:
    """Commands about a connection or a listener of Sockets."""

    def on(self, what):
        """The connection's socket, or the listener's."""
        return self.listener if what == "listener" else self.socket

    def state(self, what=""):
        return str(self.on(what).getsockopt(0x4C4B, 1))

    def disposition(self):
        return str(self.socket.getsockopt(0x4C4B, 6))

    def peer_id(self, what=""):
        return self.on(what).getsockopt(0x4C4B, 2, 256).decode()

    def local_id(self):
        return self.socket.getsockopt(0x4C4B, 3, 256).decode()

    def binding(self):
        """The channel binding, in hexadecimal after the type's name."""
        kind, octets = self.socket.getsockopt(0x4C4B, 7, 96).split(b":", 1)
        return f"{kind.decode()} {octets.hex()}"

    def info(self):
        """The fields of latchkey_info that do not change from one run to the next."""
        octets = self.socket.getsockopt(0x4C4B, 4, 1024)
        size, version, _, _, state, disposition, flags, reqid, _, _ = struct.unpack_from("=IIQQiiIIII", octets)
        bits, protocol, mode, replay, esn, pin, flow = struct.unpack_from("=HBBBBBB", octets, 48)
        family, port = struct.unpack_from("=HH", octets, 80)
        names = [octets[at : at + room].split(b"\0")[0].decode() for at, room in
                 ((152, 256), (408, 256), (664, 64), (728, 64), (792, 64), (856, 64), (920, 64), (984, 32))]
        numbers = (size == len(octets), version, state, disposition, flags, reqid, bits, protocol, mode, replay, esn,
                   pin, flow, socket.AddressFamily(family).name, port)
        return " ".join(str(each) for each in numbers) + " " + " ".join(name or "-" for name in names)

    def wish(self, family, *text):
        """A new socket with a request; "|" stands for the end of a line."""
        made = self.new(socket.AF_INET6 if family == "6" else socket.AF_INET)
        made.setsockopt(0x4C4B, 5, " ".join(text).replace("|", "\n").encode())
        return "ok"

    def wish_again(self, *text):
        self.socket.setsockopt(0x4C4B, 5, " ".join(text).replace("|", "\n").encode())
        return "ok"

    def wish_listen(self, address, port):
        """Has the socket of a wish listen."""
        self.socket.bind((address, int(port)))
        self.socket.listen(8)
        self.listener = self.socket
        return "ok"

    def xfrm(self):
        """What a program may not do: its own policy on a socket."""
        self.socket.setsockopt(socket.IPPROTO_IP, 17, bytes(184))
        return "ok"
