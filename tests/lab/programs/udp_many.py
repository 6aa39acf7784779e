"""udp_many.py peers|flows ADDRESS PORT: asks an echo server from many sources, one datagram each, and says how many
answers came as they should.

peers: from 10.9.4.1 to 10.9.7.250, port 5000; every tenth expects none, so it does not wait. flows: from 5,000 ports.
"""

import socket
import sys

what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


def ask(source, number, wait):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(source)
    text = f"canary-{number:05}".encode()
    made.settimeout(5)
    made.sendto(text, (address, port))
    if not wait:
        return made, text
    try:
        got = made.recvfrom(100)
    except TimeoutError:
        return None
    made.close()
    return got == (text, (address, port))


if what == "peers":
    sources = [(f"10.9.{4 + i // 250}.{i % 250 + 1}", 5000) for i in range(1000)]
else:
    sources = [("10.9.0.1", 20000 + i) for i in range(5000)]
said, unheard = [], []
for number, source in enumerate(sources):
    if what == "peers" and number % 10 == 9:
        unheard.append(ask(source, number, False))
    else:
        said.append(ask(source, number, True))
for made, _ in unheard:
    made.setblocking(False)
    try:
        made.recv(100)
        said.append(False)
    except BlockingIOError:
        pass
wrong = said.count(False)
print(f"answered {said.count(True)} of {len(sources)}, {wrong or 'none'} wrong", flush=True)
