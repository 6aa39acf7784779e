"""connects.py SECONDS ADDRESS PORT ADDRESS PORT: connects one UDP socket to and fro between two places
while other processes send by it all the time, as fast as they can: whatever they send to the first
must be protected. Says how often, and how many connects failed."""

import os
import signal
import socket
import sys
import time


def send(made):
    while True:
        try:
            made.send(b"canary-connects")
        except OSError:
            pass


def main(seconds, *places):
    places = [(places[0], int(places[1])), (places[2], int(places[3]))]
    family = socket.AF_INET6 if ":" in places[0][0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind(("", 8090))
    made.connect(places[0])
    senders = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            send(made)
        senders.append(pid)
    end = time.monotonic() + float(seconds)
    times = failed = 0
    while time.monotonic() < end:
        for place in reversed(places):
            try:
                made.connect(place)
            except OSError:
                failed += 1
        times += 1
    for pid in senders:
        os.kill(pid, signal.SIGKILL)
    print(f"{times} times, {failed} failed", flush=True)


main(*sys.argv[1:])
