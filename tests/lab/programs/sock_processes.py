"""What sock.py does with itself: children, privileges, descriptors, exec."""

import ctypes
import os
import socket
import sys


class Processes:
    """Commands about the process that Sockets is in."""

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
        os.execv(sys.executable, [sys.executable, "-I", "-S", sys.argv[0], *arguments,
                                  f"adopt {descriptor}"])

    def exec_under(self, policy, *arguments):
        """The same under `latchkey run`."""
        descriptor = self.socket.fileno()
        os.set_inheritable(descriptor, True)
        os.execvp("latchkey", ["latchkey", "run", "-p", policy, "--", sys.executable, "-I", "-S", sys.argv[0],
                               *arguments, f"adopt {descriptor}"])

    def hand_listener(self, options, *arguments):
        """Becomes this program anew, with the listener handed over as service managers do it; under `latchkey run`
        with these options, apart by commas, or as it is ("-"). With "unnamed" before them the variables mean another."""
        os.dup2(self.listener.fileno(), 3)
        os.set_inheritable(3, True)
        words = options.split(",")
        unnamed = words[0] == "unnamed"
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getppid() if unnamed else os.getpid()))
        under = [] if options == "-" else ["latchkey", "run", *words[unnamed:], "--"]
        command = [*under, sys.executable, "-I", "-S", sys.argv[0], *arguments]
        os.execvp(command[0], command)

    def take_listener(self):
        """sd_listen_fds(3)"""
        if (os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"]) != ("1", str(os.getpid())):
            return "none"
        return self.take_listener_anyway()

    def take_listener_anyway(self):
        """Without regard to whether it was said to be handed over."""
        self.listener = socket.socket(fileno=3)
        return "ok"

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
