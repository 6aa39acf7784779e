#!/usr/bin/python3
"""many.py ADDRESS PORT COUNT: opens COUNT connections at once, from ten threads, half of them
non-blocking, has a text of its own echoed on each, prints "echoed N", and holds
them until it is ended."""

import errno
import select
import socket
import sys
import threading

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
THREADS = 10
good = []
held = []
failed = []


def one(number):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    held.append(made)
    if number % 2:
        made.setblocking(False)
        said = made.connect_ex((address, port))
        if said == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(made, select.POLLOUT)
            poll.poll()
            said = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if said:
            raise OSError(said, "connect")
        made.setblocking(True)
    else:
        made.connect((address, port))
    text = f"canary-{number:05}".encode()
    made.sendall(text)
    got = b""
    while len(got) < len(text):
        more = made.recv(100)
        if not more:
            raise OSError(0, "end of file")
        got += more
    if got == text:
        good.append(number)


def run(first):
    for number in range(first, count, THREADS):
        try:
            one(number)
        except OSError as error:
            failed.append(f"{number}: {errno.errorcode.get(error.errno, error)}")


threads = [threading.Thread(target=run, args=(first,)) for first in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*failed[:5], sep="\n", file=sys.stderr)
print("echoed", len(good), flush=True)
threading.Event().wait()
