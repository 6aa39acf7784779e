#!/usr/bin/python3
"""latchkey and the fence from outside: what is refused and what is said.

Usage: fenced_test.py LATCHKEY FAKE_BROKER. Nothing here needs a kernel with ESP or a real broker.
"""
import os
import socket
import subprocess
import sys
import unittest

from cli_base import Base


class Fenced(Base):
    def static(self, *options):
        source = self.write("s.c", "int main(void) { return 0; }\n")
        subprocess.run(["gcc", *(options or ["-static"]), "-o", self.path("static"), source], check=True)
        return self.path("static")

    def test_static(self):
        for option in ("-static", "-static-pie"):
            static = self.static(option)
            alone = static + ": statically linked: the shim cannot be loaded into it"
            script = self.write("script", "#!" + static + "\n")
            inner = f"{script}: its interpreter {alone}"
            for program, why in ((static, alone), (script, inner)):
                self.start_broker()
                self.refused(self.run_latched(program, options=["--no-fence"]), 126, why)
                result = self.run_latched(program)
                self.assertEqual((result.returncode, result.stdout, result.stderr),
                                 (0, "", f"latchkey: {why}: fenced, not latched\n"))
                self.write("broker.sock.unfenced", "")
                self.refused(self.run_latched(program), 126,
                             why + "; and no fence: no cgroups (unsupported)")
                os.unlink(self.path("broker.sock.unfenced"))
                self.stop_broker()

    def test_fence(self):
        self.start_broker()
        for options in ([], ["--fence"]):
            result = self.run_latched("true", options=options)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
        past = ": what gets past the shim goes by the SPD\n"
        result = self.run_latched("true", options=["--no-fence"])
        self.assertEqual((result.returncode, result.stderr),
                         (0, "latchkey: not fenced: --no-fence" + past))
        self.refused(self.run_latched("true", options=["--fence", "--no-fence"]), 125,
                     "--fence excludes --no-fence (see latchkey --help)")
        self.write("broker.sock.unfenced", "")
        result = self.run_latched("true")
        self.assertEqual((result.returncode, result.stderr),
                         (0, "latchkey: not fenced: no cgroups" + past))
        self.refused(self.run_latched("true", options=["--fence"]), 125, "not fenced: no cgroups")

    def test_list_says_who_is_not_fenced(self):
        self.start_broker()
        self.write("broker.sock.fences", "")
        result = self.call("list", "--socket", self.socket)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stderr, "latchkey: fenced, not latched: /usr/bin/app2\n"
                         "latchkey: not fenced: /usr/bin/app3: --no-fence\n"
                         "latchkey: not fenced: /usr/bin/app4: no cgroups\n"
                         "latchkey: not fenced: /usr/bin/app5: run by hand (2 sessions)\n")

    def test_handed_sockets(self):
        self.start_broker()
        static = self.static()
        alone = static + ": statically linked: the shim cannot be loaded into it"
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as other:
            both = sorted((listener.fileno(), other.fileno()))
            outside = f"2 sockets that it was handed are outside of the fence: descriptors {both[0]}, {both[1]}"
            # The shim asks about each, whoever made it: with it there is nothing to say, unless one asks.
            for options, said in (([], ""), (["-v"], f"latchkey: {outside}: only the shim sees to them\n")):
                result = self.run_latched("true", options=options, pass_fds=both)
                self.assertEqual(result.returncode, 0)
                self.assertEqual("".join(line for line in result.stderr.splitlines(True) if "handed" in line), said)
            self.refused(self.run_latched("true", options=["--fence"], pass_fds=both), 126, outside)
            self.refused(self.run_latched(static, pass_fds=both), 126, f"{alone}; and {outside}")
            result = self.run_latched("true", options=["--no-fence", "-v"], pass_fds=both)
            self.assertEqual((result.returncode, "handed" in result.stderr), (0, False))
        near, far = socket.socketpair()
        with near, far:
            result = self.run_latched(static, options=["--fence"], pass_fds=[far.fileno()])
            self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
