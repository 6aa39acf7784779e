#!/usr/bin/python3
"""server.py PORT NAME...: greets those of its peers that it knows by name, and nobody else.

The policy (server.toml) says who may connect at all; this program decides what each of them may do.
Nothing is imported for it: the peer's name is an option of the socket, like any other.
"""

import socket
import struct
import sys

SOL_LATCHKEY = 0x4C4B  # latchkey.h
LATCHKEY_STATE, LATCHKEY_PEER_ID, LATCHKEY_INFO = 1, 2, 4
LATCHKEY_ESTABLISHED = 2


def peer_of(connection):
    """The name of the peer; None for whoever has none: not latched, or in clear."""
    try:
        if connection.getsockopt(SOL_LATCHKEY, LATCHKEY_STATE) != LATCHKEY_ESTABLISHED:
            return None
        return connection.getsockopt(SOL_LATCHKEY, LATCHKEY_PEER_ID, 256).decode()
    except OSError:
        return None


def how(connection):
    """How the peer is protected: fields of struct latchkey_info."""
    info = connection.getsockopt(SOL_LATCHKEY, LATCHKEY_INFO, 1024)
    (bits,) = struct.unpack_from("=H", info, 48)
    auth, encryption = (info[at : at + 64].split(b"\0")[0].decode() for at in (664, 728))
    return f"{auth}, {encryption}, {bits} bits"


def main(port, *names):
    with socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                name = peer_of(connection)
                if name is None:
                    answer = "403 nobody is behind this connection"
                elif name not in names:
                    answer = f"403 not for {name}"
                else:
                    answer = f"200 welcome, {name} ({how(connection)})"
                print(answer, flush=True)
                connection.sendall(answer.encode() + b"\n")


main(*sys.argv[1:])
