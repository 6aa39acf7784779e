#!/usr/bin/python3
"""sock.py [-i FIFO] [COMMAND...]: makes socket calls one by one, as told, and prints what each said.

A program that knows nothing of Latchkey: every call is libc's own, on blocking sockets unless the
command says otherwise. One line a command, "= COMMAND: RESULT", where RESULT is "ok", what was
received, "eof", "timeout" or the name of an errno. After its arguments it reads commands from the
FIFO, until "quit". Calls are given up after 20 s ("timeout N" changes that) by an alarm, so that no
socket option changes what they say. Commands are the methods of Sockets below; a name's "-" is "_".
"""

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import sys
import time

# Run with -I, it finds its parts by this alone; what they are compiled to stays nowhere.
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
from sock_datagrams import Datagrams
from sock_latches import Latches
from sock_options import Options
from sock_processes import Processes
from sock_words import GivenUp, family_of, give_up, name_of, word


class Sockets(Options, Datagrams, Latches, Processes):
    def __init__(self):
        self.seconds = 20.0
        self.elapsed_ms = 0
        self.ended_ms = 0
        self.connections = {}  # by name
        self.name = "0"
        self.listener = None
        self.waits = None  # the listener's epoll

    @property
    def socket(self):
        return self.connections[self.name]

    # --- on the side ---
    def timeout(self, seconds):
        self.seconds = float(seconds)
        return "ok"

    def elapsed(self):
        """Whole milliseconds of the command before."""
        return str(self.elapsed_ms)

    def ended(self):
        """When the command before was over: milliseconds since 1970."""
        return str(self.ended_ms)

    def use(self, name):
        """Makes another connection the one that the other commands are about."""
        self.name = name
        return "ok"

    def sleep(self, seconds):
        time.sleep(float(seconds))
        return "ok"

    def quit(self):
        sys.exit(0)

    # --- connections ---
    def new(self, family):
        made = socket.socket(family, socket.SOCK_STREAM)
        self.connections[self.name] = made
        return made

    def new_on(self, device, address):
        """A socket of the address's family that is bound to a device."""
        self.new(family_of(address)).setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        return "ok"

    def connect(self, address, port, local_port="0", local_address=""):
        made = self.new(family_of(address))
        if local_port != "0" or local_address:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((local_address, int(local_port)))
        made.connect((address, int(port)))
        return "ok"

    def nconnect(self, address, port):
        """Non-blocking: what connect says, or after EINPROGRESS what SO_ERROR says in the end."""
        made = self.new(family_of(address))
        made.setblocking(False)
        said = made.connect_ex((address, int(port)))
        if said == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(made, select.POLLOUT)
            poll.poll()
            said = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        made.setblocking(True)
        return name_of(said) if said else "ok"

    def econnect(self, address, port):
        """Non-blocking, edge-triggered: what came of it, what connect said, the wake-ups, the ms of each."""
        made = self.new(family_of(address))
        made.setblocking(False)
        begun = time.monotonic()
        said = made.connect_ex((address, int(port)))
        back = time.monotonic() - begun
        poll = select.epoll()
        poll.register(made, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
        wakes = 0
        while said == errno.EINPROGRESS:
            wakes += len(poll.poll())
            error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            try:
                made.getpeername()
                connected = True
            except OSError:
                connected = False
            if error or connected:
                break
        else:
            error = said
        made.setblocking(True)
        took = time.monotonic() - begun
        return f"{name_of(error) if error else 'ok'} {wakes} {back * 1000:.0f} {took * 1000:.0f}"

    def begin(self, address, port):
        """Non-blocking: what connect says, and no more."""
        made = self.new(family_of(address))
        made.setblocking(False)
        said = made.connect_ex((address, int(port)))
        return name_of(said) if said else "ok"

    def again(self, address, port):
        """Connects the socket of a connect that failed once more."""
        self.socket.connect((address, int(port)))
        return "ok"

    def syscall_connect(self, address, port):
        """connect through libc's syscall()."""
        made = self.new(socket.AF_INET)
        name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", int(port)) + socket.inet_aton(address)
        return self.syscall(42, made.fileno(), name + bytes(8), 16)

    @staticmethod
    def syscall(number, *arguments):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(ctypes.c_long(number), *arguments) < 0:
            return name_of(ctypes.get_errno())
        return "ok"

    def fastopen(self, address, port, text):
        """Sends with the SYN: the first call on a socket is sendto(MSG_FASTOPEN)."""
        made = self.new(family_of(address))
        made.sendto(text.encode(), socket.MSG_FASTOPEN, (address, int(port)))
        return "ok"

    def fastopen_connect(self, address, port, text):
        """The same by TCP_FASTOPEN_CONNECT: connect says yes at once, the first send does it."""
        made = self.new(family_of(address))
        made.setsockopt(socket.IPPROTO_TCP, 30, 1)
        made.connect((address, int(port)))
        made.sendall(text.encode())
        return "ok"

    def fastopen_listen(self, address, port):
        """Listens, then asks for server-side Fast Open."""
        self.listen(address, port)
        self.listener.setsockopt(socket.IPPROTO_TCP, 23, 5)
        return "ok"

    def listen_unbound(self, family):
        """listen() without bind(): on a port of the kernel's choice, which it tells."""
        made = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_STREAM)
        made.listen(8)
        self.listener = made
        return str(made.getsockname()[1])

    def listen(self, address, port, backlog="64"):
        """On "::" both families, on "::only" IPv6 alone; a BACKLOG of "shared" is SO_REUSEPORT."""
        made = socket.socket(family_of(address), socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(backlog == "shared"))
        if ":" in address:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address == "::only"))
        made.bind(("::" if address == "::only" else address, int(port)))
        made.listen(64 if backlog == "shared" else int(backlog))
        self.listener = made
        return "ok"

    def accept(self):
        made, peer = self.listener.accept()
        self.connections[self.name] = made
        return peer[0]

    def eaccept(self, trigger):
        """Waits by epoll, "level" or "edge", and accepts without blocking until there is nobody more: who came."""
        if self.waits is None:
            self.listener.setblocking(False)
            self.waits = select.epoll()
            self.waits.register(self.listener, select.EPOLLIN | (select.EPOLLET if trigger == "edge" else 0))
        self.waits.poll()
        came = []
        while True:
            try:
                self.connections[self.name], peer = self.listener.accept()
            except BlockingIOError:
                return " ".join([*came, "EAGAIN"])
            came.append(peer[0])

    def unlisten(self):
        self.listener.close()
        return "ok"

    def close(self):
        self.socket.close()
        return "ok"

    def user_timeout(self, milliseconds):
        self.socket.setsockopt(socket.IPPROTO_TCP, 18, int(milliseconds))
        return "ok"

    def mark(self, value=None):
        """Says SO_MARK, or sets it."""
        if value is None:
            return hex(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(value, 0))
        return "ok"

    # --- data ---
    def send(self, text):
        self.socket.sendall(text.encode())
        return "ok"

    def write(self, text):
        os.write(self.socket.fileno(), text.encode())
        return "ok"

    def recv(self):
        return self.socket.recv(4096).decode(errors="replace") or "eof"

    def read(self):
        return os.read(self.socket.fileno(), 4096).decode(errors="replace") or "eof"

    def echo(self, text):
        """Sends, and receives as much."""
        self.socket.sendall(text.encode())
        got = b""
        while len(got) < len(text.encode()):
            more = self.socket.recv(4096)
            if not more:
                return "eof"
            got += more
        return got.decode(errors="replace")

    def epoll(self):
        """Waits for anything to happen, then asks SO_ERROR; data or end of file is told as such."""
        poll = select.epoll()
        poll.register(self.socket, select.EPOLLIN | select.EPOLLRDHUP)
        poll.poll()
        said = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if said:
            return name_of(said)
        return self.socket.recv(4096, socket.MSG_DONTWAIT).decode(errors="replace") or "eof"

    def transfer(self, text):
        """Sends the text over and over until something stops it."""
        block = (text.encode() + b" ") * 64
        while True:
            self.socket.sendall(block)

    def trickle(self, stop, size):
        """Blocks there and back, one at a time, 20 ms apart, until a file is there: how many came
        whole of how many, the longest wait for one in ms, and the octets each way a ms of waiting."""
        self.seconds = 0.0
        signal.setitimer(signal.ITIMER_REAL, 240)
        number, whole, longest, waited = 0, 0, 0.0, 0.0
        while not os.path.exists(stop):
            block = struct.pack("!I", number) * (int(size) // 4)
            begun = time.monotonic()
            self.socket.sendall(block)
            got = bytearray()
            while len(got) < len(block):
                more = self.socket.recv(65536)
                if not more:
                    return f"eof after {whole} whole"
                got += more
            took = time.monotonic() - begun
            longest, waited = max(longest, took), waited + took
            whole += got == block
            number += 1
            time.sleep(0.02)
        signal.setitimer(signal.ITIMER_REAL, 0)
        rate = number * int(size) / max(waited * 1000, 1)
        return f"{whole} of {number} whole, longest {longest * 1000:.0f} ms, {rate:.0f} octets/ms"

    def sink(self):
        """Receives until the end, which it tells; "sunk" says how much there was."""
        self.sunk_octets = 0
        while True:
            more = self.socket.recv(65536)
            if not more:
                return "eof"
            self.sunk_octets += len(more)

    def sunk(self):
        return str(self.sunk_octets)

    def serve(self):
        """Accepts for ever and echoes everybody; says who came and what ended with an error."""
        self.seconds = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        poll = select.epoll()
        poll.register(self.listener, select.EPOLLIN)
        peers = {}
        print("= serve: ok", flush=True)
        while True:
            for descriptor, _ in poll.poll():
                try:
                    if descriptor == self.listener.fileno():
                        made, peer = self.listener.accept()
                        print("accepted", peer[0], flush=True)
                        peers[made.fileno()] = made
                        poll.register(made, select.EPOLLIN)
                        continue
                    data = peers[descriptor].recv(65536)
                    if data:
                        peers[descriptor].sendall(data)
                        continue
                except OSError as error:
                    print("error", word(error), flush=True)
                if descriptor in peers:
                    poll.unregister(descriptor)
                    peers.pop(descriptor).close()

    # --- TLS ---
    def tls_accept(self, certificate):
        import ssl

        peer = self.accept()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.connections[self.name] = context.wrap_socket(self.socket, server_side=True)
        return peer

    # --- the commands themselves ---
    def do(self, line):
        command, *arguments = line.split(" ")
        method = getattr(self, command.replace("-", "_"))
        began = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
            result = method(*arguments)
        except OSError as error:
            result = word(error)
        except GivenUp:
            result = "timeout"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if command not in ("elapsed", "ended"):
            self.elapsed_ms = int((time.monotonic() - began) * 1000)
            self.ended_ms = int(time.time() * 1000)
        return f"{command}: {result}"


def main(arguments):
    signal.signal(signal.SIGALRM, give_up)
    fifo = None
    if arguments[:1] == ["-i"]:
        fifo = open(os.open(arguments[1], os.O_RDWR), encoding="utf-8")
        arguments = arguments[2:]
    sockets = Sockets()
    for line in arguments:
        print("=", sockets.do(line), flush=True)
    while fifo:
        line = fifo.readline().rstrip("\n")
        print("=", sockets.do(line), flush=True)


main(sys.argv[1:])
