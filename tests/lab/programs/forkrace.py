#!/usr/bin/python3
"""forkrace.py ADDRESS PORT ROUNDS: in every round a parent and its child connect at the same moment and
have different texts echoed; prints how many rounds went well."""

import os
import socket
import sys

address, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def echoed(text):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.connect((address, port))
            made.sendall(text)
            got = b""
            while len(got) < len(text):
                more = made.recv(100)
                if not more:
                    break
                got += more
            return got == text
    except OSError as error:
        print(error, file=sys.stderr)
        return False


good = 0
assert echoed(b"canary-before")  # the parent has a session of its own before it forks
for number in range(rounds):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent is ready
        os._exit(0 if echoed(b"canary-child-%d" % number) else 1)
    os.close(reader)
    os.close(writer)
    mine = echoed(b"canary-parent-%d" % number)
    _, status = os.waitpid(child, 0)
    good += mine and status == 0
print("good", good)
