"""slow_vici.py LISTEN CHARON MS: charon's VICI socket once more, where all that charon says comes MS milliseconds late."""
import queue
import socket
import sys
import threading
import time

listen, charon, delay = sys.argv[1], sys.argv[2], int(sys.argv[3]) / 1000


def forward(source, sink):
    while octets := source.recv(65536):
        sink.sendall(octets)
    sink.shutdown(socket.SHUT_WR)


def late(source, sink):
    said = queue.Queue()

    def say():
        while True:
            due, octets = said.get()
            time.sleep(max(0, due - time.monotonic()))
            if not octets:
                return sink.close()
            sink.sendall(octets)

    threading.Thread(target=say, daemon=True).start()
    octets = b"-"
    while octets:
        octets = source.recv(65536)
        said.put((time.monotonic() + delay, octets))


server = socket.socket(socket.AF_UNIX)
server.bind(listen)
server.listen(8)
while True:
    client = server.accept()[0]
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(charon)
    threading.Thread(target=forward, args=(client, peer), daemon=True).start()
    threading.Thread(target=late, args=(peer, client), daemon=True).start()
