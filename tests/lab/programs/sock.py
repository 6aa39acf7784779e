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


class GivenUp(Exception):
    """The alarm."""


def give_up(_signal, _frame):
    raise GivenUp


def name_of(number):
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def word(error):
    return type(error).__name__ if error.errno is None else name_of(error.errno)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Sockets:
    def __init__(self):
        self.seconds = 20.0
        self.elapsed_ms = 0
        self.ended_ms = 0
        self.connections = {}  # by name
        self.name = "0"
        self.listener = None

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

    # --- what latchkey.h offers ---
    def on(self, what):
        """The connection's socket, or the listener's."""
        return self.listener if what == "listener" else self.socket

    def state(self, what=""):
        return str(self.on(what).getsockopt(0x4C4B, 1))

    def disposition(self):
        return str(self.socket.getsockopt(0x4C4B, 6))

    def peer_id(self, what=""):
        return self.on(what).getsockopt(0x4C4B, 2, 256).decode()

    def local_id(self):
        return self.socket.getsockopt(0x4C4B, 3, 256).decode()

    def binding(self):
        """The channel binding, in hexadecimal after the type's name."""
        kind, octets = self.socket.getsockopt(0x4C4B, 7, 96).split(b":", 1)
        return f"{kind.decode()} {octets.hex()}"

    def info(self):
        """The fields of latchkey_info that do not change from one run to the next."""
        octets = self.socket.getsockopt(0x4C4B, 4, 1024)
        size, version, _, _, state, disposition, flags, reqid, _, _ = struct.unpack_from("=IIQQiiIIII", octets)
        bits, protocol, mode, replay, esn, pin, flow = struct.unpack_from("=HBBBBBB", octets, 48)
        family, port = struct.unpack_from("=HH", octets, 80)
        names = [octets[at : at + room].split(b"\0")[0].decode() for at, room in
                 ((152, 256), (408, 256), (664, 64), (728, 64), (792, 64), (856, 64), (920, 64), (984, 32))]
        numbers = (size == len(octets), version, state, disposition, flags, reqid, bits, protocol, mode, replay, esn,
                   pin, flow, socket.AddressFamily(family).name, port)
        return " ".join(str(each) for each in numbers) + " " + " ".join(name or "-" for name in names)

    def wish(self, family, *text):
        """A new socket with a request; "|" stands for the end of a line."""
        made = self.new(socket.AF_INET6 if family == "6" else socket.AF_INET)
        made.setsockopt(0x4C4B, 5, " ".join(text).replace("|", "\n").encode())
        return "ok"

    def wish_again(self, *text):
        self.socket.setsockopt(0x4C4B, 5, " ".join(text).replace("|", "\n").encode())
        return "ok"

    def wish_listen(self, address, port):
        """Has the socket of a wish listen."""
        self.socket.bind((address, int(port)))
        self.socket.listen(8)
        self.listener = self.socket
        return "ok"

    def xfrm(self):
        """What a program may not do: its own policy on a socket."""
        self.socket.setsockopt(socket.IPPROTO_IP, 17, bytes(184))
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
        whole of how many, the longest wait for one in ms."""
        self.seconds = 0.0
        signal.setitimer(signal.ITIMER_REAL, 240)
        number, whole, longest = 0, 0, 0.0
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
            longest = max(longest, time.monotonic() - begun)
            whole += got == block
            number += 1
            time.sleep(0.02)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return f"{whole} of {number} whole, longest {longest * 1000:.0f} ms"

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

    # --- datagrams ---
    def udp_send(self, address, port, text):
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.sendto(text.encode(), (address, int(port)))
        return "ok"

    def udp_connect(self, address, port, text):
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.connect((address, int(port)))
        made.send(text.encode())
        return "ok"

    def udp_from(self, address, port, local_port, text):
        """One datagram from a port of its own choice."""
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", int(local_port)))
        made.sendto(text.encode(), (address, int(port)))
        return "ok"

    def udp_bind(self, address, port):
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.bind((address, int(port)))
        self.connections[self.name] = made
        return "ok"

    def udp(self, address, port, local_port="0", blocking="1"):
        """A connected socket, which the other commands then are about."""
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        if local_port != "0":
            made.bind(("", int(local_port)))
        made.setblocking(blocking == "1")
        self.connections[self.name] = made
        made.connect((address, int(port)))
        made.setblocking(True)
        return "ok"

    def sendto(self, address, port, text):
        """Without regard to a connection."""
        self.socket.sendto(text.encode(), (address, int(port)))
        return "ok"

    def disconnect(self):
        libc = ctypes.CDLL(None, use_errno=True)
        nowhere = struct.pack("=H", socket.AF_UNSPEC) + bytes(14)
        return "ok" if libc.connect(self.socket.fileno(), nowhere, 16) == 0 else name_of(ctypes.get_errno())

    def ping(self, address):
        """One echo request and its reply (needs CAP_NET_RAW)."""
        family = family_of(address)
        protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
        request, reply = (128, 129) if family == socket.AF_INET6 else (8, 0)
        body = os.urandom(16)
        packet = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1) + body
        total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        packet = packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]
        made = socket.socket(family, socket.SOCK_RAW, protocol)
        made.sendto(packet, (address, 0))
        while True:
            got = made.recv(2048)
            if family == socket.AF_INET:
                got = got[(got[0] & 15) * 4:]
            if got[0] == reply and got[8:] == body:
                return "ok"

    # --- processes ---
    def in_child(self, *command):
        """Runs one command in a forked child."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, self.do(" ".join(command)).encode())
            os._exit(0)
        os.close(writer)
        said = os.read(reader, 4096).decode()
        os.close(reader)
        os.waitpid(child, 0)
        return said

    def daemonize(self):
        """Goes on as a child, in place of the parent, which is gone."""
        if os.fork() != 0:
            os._exit(0)
        return "ok"

    def setuid(self, uid):
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
        return "ok"

    def close_all(self):
        """Closes every descriptor that this program did not open itself: all but 0 to 2."""
        libc = ctypes.CDLL(None, use_errno=True)
        for descriptor in range(3, 4096):
            libc.close(descriptor)
        return "ok"

    def close_range(self):
        libc = ctypes.CDLL(None, use_errno=True)
        return "ok" if libc.close_range(3, ctypes.c_uint(0xFFFFFFFF), 0) == 0 else "failed"

    def exec(self, *arguments):
        """Becomes this program anew, with the connection and nothing else inherited."""
        descriptor = self.socket.fileno()
        os.set_inheritable(descriptor, True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, *arguments,
                                  f"adopt {descriptor}"])

    def adopt(self, descriptor):
        self.connections[self.name] = socket.socket(fileno=int(descriptor))
        return "ok"

    def capabilities(self):
        """The effective set of capabilities, in hex, without leading zeros."""
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("CapEff:"):
                    return line.split()[1].lstrip("0") or "0"
        return "none"

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
