#!/usr/bin/python3
"""workers.py ADDRESS PORT UID COUNT: listens as root, then COUNT workers drop to UID, accept and echo."""

import errno
import os
import socket
import sys

address, port, uid, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
listener = socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=True)
children = []
for _ in range(count):
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        while True:
            made, peer = listener.accept()
            print("accepted", peer[0], "by uid", os.getuid(), flush=True)
            try:
                with made:
                    while data := made.recv(4096):
                        made.sendall(data)
            except OSError as error:
                print("error", errno.errorcode[error.errno], flush=True)
    children.append(child)
print("ready", flush=True)
for child in children:
    os.waitpid(child, 0)
