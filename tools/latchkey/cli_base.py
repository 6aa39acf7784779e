"""What the tests of the command line share: a folder, a fake broker, calls and their answers."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

LATCHKEY, BROKER = (os.path.abspath(path) for path in sys.argv[1:3])
# Any shared object stands in for the shim: what is asked here is what the launcher does.
SHIM = "/lib/x86_64-linux-gnu/libm.so.6"
POLICY = "latchkey = 1\napplication = \"t\"\n[[rule]]\ndirection = \"out\"\naction = \"bypass\"\n"


class Base(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lk", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder)
        self.socket = self.folder + "/broker.sock"
        self.environment = {"PATH": "/usr/bin:/bin", "LATCHKEY_SHIM": SHIM}

    def path(self, name):
        return self.folder + "/" + name

    def write(self, name, text, mode=0o755):
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def stop_broker(self):
        self.broker.kill()
        self.broker.wait()
        os.unlink(self.socket)

    def start_broker(self):
        broker = self.broker = subprocess.Popen([BROKER, "--socket", self.socket])
        self.addCleanup(broker.wait)
        self.addCleanup(broker.kill)
        deadline = time.monotonic() + 10
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                if probe.connect_ex(self.socket) == 0:
                    return
            self.assertLess(time.monotonic(), deadline, "the fake broker does not start")
            time.sleep(0.01)

    def call(self, *arguments, **options):
        environment = {**self.environment, **options.pop("env", {})}
        return subprocess.run([LATCHKEY, *arguments], env=environment, text=True, timeout=30,
                              stdin=subprocess.DEVNULL, capture_output=True, **options)

    def run_latched(self, *command, options=(), **more):
        return self.call("run", "--socket", self.socket, *options, "--", *command, **more)

    def refused(self, result, code, text):
        self.assertEqual((result.returncode, result.stdout), (code, ""), result.stderr)
        self.assertEqual(result.stderr, "latchkey: " + text + "\n")
