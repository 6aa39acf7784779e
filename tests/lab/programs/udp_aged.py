"""udp_aged.py: sends from one UDP socket to so many that the oldest make way, and goes on all the while.

To 10.9.0.2 port 9000, which is protected, and to ports of 10.9.0.3, each of which is asked about by itself: 1,023 of
them, then for 65 seconds to the first and to the peer alone, then to 300 more by turns with the first. No send may fail
but for want of room while nobody is idle. Says how many were sent to the peer.
"""

import errno
import socket
import sys
import time

made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind(("", 9100))
sent = 0


def peer():
    global sent
    sent += 1
    made.sendto(b"canary-%05d" % sent, ("10.9.0.2", 9000))


def other(port):
    made.sendto(b"clear-%05d" % port, ("10.9.0.3", port))


peer()
for port in range(10000, 11023):
    other(port)
    if port % 64 == 0:
        peer()
print("full", flush=True)
try:
    other(12000)
except OSError as error:  # unless that took so long that the first ones are idle already
    if error.errno != errno.EACCES:
        sys.exit(f"no room, and it says {errno.errorcode[error.errno]}")
    print("refused", flush=True)
end = time.monotonic() + 65
while time.monotonic() < end:
    peer()
    other(10000)
    time.sleep(0.05)
for port in range(20000, 20300):
    other(port)
    other(10000)
    peer()
for port in (20000, 11022, 10001):  # the last one has made way, and is asked about anew
    other(port)
print(f"sent {sent}", flush=True)
