"""What sock.py does with the latches of datagrams (LATCHKEY_LATCHES, LATCHKEY_LATCH: latchkey.h)."""

import ctypes
import os
import socket
import struct

from sock_words import family_of

SOL_LATCHKEY, LATCHES, PEER_INFO, LATCH = 0x4C4B, 8, 9, 1
SO_RCVMARK = 75


class Latches:
    """Commands about UDP sockets, connected or not."""

    def latches(self, flag):
        self.socket.setsockopt(SOL_LATCHKEY, LATCHES, int(flag))
        return str(self.socket.getsockopt(SOL_LATCHKEY, LATCHES))

    def marks(self, flag):
        """The program's own wish for SO_RCVMARK."""
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, int(flag))
        return str(self.socket.getsockopt(socket.SOL_SOCKET, SO_RCVMARK))

    def recv_latch(self):
        """A datagram, and what came with it: "latch ID", "mark", and whether that was cut short."""
        text, control, flags, self.sender = self.socket.recvmsg(2048, 256)
        words = [text.decode()]
        for level, kind, data in control:
            if (level, kind) == (SOL_LATCHKEY, LATCH):
                words.append(f"latch {struct.unpack('=Q', data)[0]}")
            elif (level, kind) == (socket.SOL_SOCKET, socket.SO_MARK):
                words.append("mark")
        return " ".join(words + ["cut"] * bool(flags & socket.MSG_CTRUNC))

    def send_under(self, address, port, latch, text):
        """To there, or with "-" over the connection, under this latch or not at all."""
        control = [(SOL_LATCHKEY, LATCH, struct.pack("=Q", int(latch)))]
        where = () if address == "-" else ((address, int(port)),)
        self.socket.sendmsg([text.encode()], control, 0, *where)
        return "ok"

    def answer_under(self, latch, text):
        """To who sent what recv-latch read."""
        return self.send_under(self.sender[0], self.sender[1], latch, text)

    def peer_info(self, latch):
        """State and peer of one latch of the socket."""
        info = bytearray(1024)
        struct.pack_into("=Q", info, 8, int(latch))
        size = ctypes.c_uint32(len(info))
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = (ctypes.c_char * len(info)).from_buffer(info)
        if libc.getsockopt(self.socket.fileno(), SOL_LATCHKEY, PEER_INFO, buffer, ctypes.byref(size)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        state = struct.unpack_from("=i", info, 24)[0]
        return f"{state} {bytes(info[152:408]).split(bytes(1))[0].decode()}"

    def udp_wish(self, address, *text):
        """A new UDP socket of the address's family with a request; "|" stands for the end of a line."""
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.setsockopt(SOL_LATCHKEY, 5, " ".join(text).replace("|", "\n").encode())
        self.connections[self.name] = made
        return "ok"

    def udp_wish_bind(self, address, port):
        """Binds the socket of a wish."""
        self.socket.bind((address, int(port)))
        return "ok"
