"""What sock.py does with datagrams."""

import ctypes
import os
import select
import signal
import socket
import struct
import time

from sock_words import family_of, name_of, word

IP_PKTINFO = 8  # linux/in.h
UDP_SEGMENT = 103  # linux/udp.h
UDP_GRO = 104


def paced(stop, place):
    while not os.path.exists(stop):
        yield place
        time.sleep(0.01)


class Datagrams:
    """Commands about UDP and raw sockets, some of which are connections of Sockets."""

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

    def udp_new(self, address):
        """A socket of the address's family, neither bound nor connected."""
        self.connections[self.name] = socket.socket(family_of(address), socket.SOCK_DGRAM)
        return "ok"

    def udp_join(self, group, address):
        """Takes in what comes for an IPv4 group, too, by the link with this address of ours."""
        request = socket.inet_aton(group) + socket.inet_aton(address)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        return "ok"

    def udp_broadcast(self):
        """May send to all of a link from now on."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return "ok"

    def blocking(self, flag):
        self.socket.setblocking(flag == "1")
        return "ok"

    def recvfrom(self):
        """A datagram and the address it came from."""
        text, name = self.socket.recvfrom(2048)
        return f"{text.decode()} {name[0]}"

    def udp_answer(self):
        """Sends the next datagram back to where it came from."""
        text, name = self.socket.recvfrom(2048)
        self.socket.sendto(text, name)
        return text.decode()

    def udp_answer_from(self, address):
        """The same, from this address of ours (IPv4)."""
        text, name = self.socket.recvfrom(2048)
        chosen = struct.pack("=i4s4s", 0, socket.inet_aton(address), bytes(4))
        self.socket.sendmsg([text], [(socket.IPPROTO_IP, IP_PKTINFO, chosen)], 0, name)
        return text.decode()

    def sendto_of(self, address, port, size):
        """So many octets, of which those at both ends are told apart."""
        self.socket.sendto(b"<" + b"canary-long." * (int(size) // 12) + b">", (address, int(port)))
        return "ok"

    def send_of(self, size):
        """The same, connected."""
        self.socket.send(b"<" + b"canary-long." * (int(size) // 12) + b">")
        return "ok"

    def udp_segments(self, address, port, text, size, count):
        """So many datagrams of so many octets by one call, for the kernel to cut up (UDP_SEGMENT)."""
        octets = text.encode().ljust(int(size), b".") * int(count)
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", int(size)))]
        self.socket.sendmsg([octets], control, 0, (address, int(port)))
        return "ok"

    def udp_by_turns(self, address, port, count, *marked):
        """So many datagrams of each mark and its text, by turns, all from the same port."""
        for _ in range(int(count)):
            for mark, text in zip(marked[::2], marked[1::2]):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
                self.socket.sendto(text.encode(), (address, int(port)))
        return "ok"

    def udp_gro(self, on="1"):
        """Asks for datagrams of one flow to be received as one."""
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(on))
        return "ok"

    def recv_merged(self):
        """All that one call receives, datagrams apart by "+"."""
        text, control, _, _ = self.socket.recvmsg(65536, 256)
        sizes = [struct.unpack("=i", data)[0] for level, kind, data in control if (level, kind) == (17, UDP_GRO)]
        size = sizes[0] if sizes else len(text)
        return "+".join(text[at : at + size].decode() for at in range(0, len(text), size))

    def recv_size(self):
        text = self.socket.recv(65536)
        return f"{len(text)} {text[:1].decode()}{text[-1:].decode()}"

    def udp_bind(self, address, port):
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.bind((address, int(port)))
        self.connections[self.name] = made
        return "ok"

    def udp_bind_anyway(self, address, port):
        """The same; one whose bind is refused is gone on with."""
        self.connections[self.name] = socket.socket(family_of(address), socket.SOCK_DGRAM)
        self.socket.bind((address, int(port)))
        return "ok"

    def udp_bind_now(self, address, port):
        """Binds what there is."""
        self.socket.bind((address, int(port)))
        return "ok"

    def udp_burst(self, address, port, count, *sources):
        """So many from each of the sources, a port and a text, by turns."""
        made = {}
        for local_port, text in zip(sources[::2], sources[1::2]):
            made[text] = socket.socket(family_of(address), socket.SOCK_DGRAM)
            made[text].bind(("", int(local_port)))
        for _ in range(int(count)):
            for text, each in made.items():
                each.sendto(text.encode(), (address, int(port)))
        return "ok"

    def udp_echo(self):
        """Answers everybody, for ever."""
        self.seconds = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        while True:
            self.socket.sendto(*self.socket.recvfrom(2048))

    def udp_fan(self, address, first, count, text):
        """One to each of so many ports; says how often a send said what."""
        ports = range(int(first), int(first) + int(count))
        return self.send_each([(address, port) for port in ports], text)

    def udp_fill(self, first, most):
        """Binds a socket to each port from the first on, until one is refused, which is then the one
        that the other commands are about: how many were not, and what it was told."""
        self.others = []
        for number in range(int(most)):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                made.bind(("0.0.0.0", int(first) + number))
            except OSError as error:
                self.connections[self.name] = made
                return f"{number} then {word(error)}"
            self.others.append(made)
        return "all"

    def udp_empty(self):
        """Closes those others."""
        for each in self.others:
            each.close()
        return "ok"

    def udp_until_refused(self, address, port, text):
        """One after the other, until a send says why not."""
        while True:
            self.socket.sendto(text.encode(), (address, int(port)))
            time.sleep(0.01)

    def udp_stream(self, address, port, count, text):
        """So many, one after the other; says how often a send said what."""
        return self.send_each([(address, int(port))] * int(count), text)

    def udp_paced(self, stop, address, port, text):
        """One every 10 ms until a file is there; says how often a send said what."""
        signal.setitimer(signal.ITIMER_REAL, 240)
        return self.send_each(paced(stop, (address, int(port))), text)

    def udp_heard(self, stop, text):
        """How many of these come, until a file is there and nothing more for a second."""
        signal.setitimer(signal.ITIMER_REAL, 240)
        heard = 0
        while True:
            if select.select([self.socket], [], [], 1)[0]:
                heard += self.socket.recv(2048) == text.encode()
            elif os.path.exists(stop):
                return str(heard)

    def send_each(self, places, text):
        said = {}
        for place in places:
            try:
                self.socket.sendto(text.encode(), place)
                result = "ok"
            except OSError as error:
                result = word(error)
            said[result] = said.get(result, 0) + 1
        return ", ".join(f"{result}: {number}" for result, number in said.items())

    def shared_recv(self, end):
        """Receives in a child and here, each until it has got this text; says how often each other text came."""
        reader, writer = os.pipe()
        child = os.fork()
        texts = []
        while (text := self.socket.recv(2048).decode()) != end:
            texts.append(text)
        if child == 0:
            os.write(writer, " ".join(texts).encode())
            os._exit(0)
        os.close(writer)
        texts += os.read(reader, 65536).decode().split()
        os.close(reader)
        os.waitpid(child, 0)
        return ", ".join(f"{text}: {texts.count(text)}" for text in sorted(set(texts)))

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

    def send_marked(self, address, port, mark, text, way="libc"):
        """The same with this mark for the one datagram, in control data; or by a libc of its own, past any preload."""
        control = (struct.pack("=Qii", socket.CMSG_LEN(4), socket.SOL_SOCKET, socket.SO_MARK)
                   + struct.pack("=Ii", int(mark, 0), 0))
        if way == "libc":
            self.socket.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SO_MARK, control[16:20])], 0,
                                (address, int(port)))
            return "ok"
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        octets = ctypes.create_string_buffer(text.encode())
        place = ctypes.create_string_buffer(
            struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(port)), socket.inet_aton(address)))
        part = struct.pack("=QQ", ctypes.addressof(octets), len(text))
        parts, marks = ctypes.create_string_buffer(part), ctypes.create_string_buffer(control)
        message = struct.pack("=QQQQQQQ", ctypes.addressof(place), 16, ctypes.addressof(parts), 1,
                              ctypes.addressof(marks), len(control), 0)
        sent = libc.sendmsg(self.socket.fileno(), message, 0)
        return "ok" if sent == len(text) else name_of(ctypes.get_errno())

    def sendto_past(self, address, port, text):
        """The same by a function of libc that no preload is before."""
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        family = self.socket.family
        place = struct.pack("=HH", family, socket.htons(int(port)))
        if family == socket.AF_INET6:
            place += bytes(4) + socket.inet_pton(family, address) + bytes(4)
        else:
            place += socket.inet_aton(address) + bytes(8)
        sent = libc.sendto(self.socket.fileno(), text.encode(), len(text), 0, place, len(place))
        return "ok" if sent == len(text) else name_of(ctypes.get_errno())

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
