#!/usr/bin/python3
"""latchkey from outside: exit codes, messages, and what the program finds when it starts.

Usage: cli_test.py LATCHKEY FAKE_BROKER. Nothing here needs a kernel with ESP or a real broker.
"""
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

from cli_base import LATCHKEY, POLICY, SHIM, Base


class Programs(Base):
    """What cannot be run is refused before a broker is asked: there is none here."""

    def check(self, program, code, text):
        self.refused(self.call("run", program), code, text)

    def test_missing(self):
        self.check("no-such-program", 127, "no-such-program: no such program in PATH")
        self.check("/no/such/program", 127, "/no/such/program: No such file or directory")
        # A verb's name is a program's name here.
        self.check("list", 127, "list: no such program in PATH")

    def test_not_executable(self):
        file = self.write("text", "x", 0o644)
        self.check(file, 126, file + ": Permission denied")
        self.check("/tmp", 126, "/tmp: Is a directory")

    def test_set_user_id(self):
        copy = self.path("true")
        shutil.copy("/bin/true", copy)
        os.chmod(copy, 0o4755)
        self.check(copy, 126, copy + ": set-user-ID: the loader ignores the shim")

    def test_file_capabilities(self):
        copy = self.path("true")
        shutil.copy("/bin/true", copy)
        value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
        if os.geteuid() != 0:
            self.skipTest("needs root")
        try:
            os.setxattr(copy, "security.capability", value)
        except OSError as error:
            self.skipTest(f"no file capabilities here: {error}")
        self.check(copy, 126, copy + ": has file capabilities: the loader ignores the shim")

    def test_neither(self):
        file = self.write("text", "echo hello\n")
        self.check(file, 126, file + ": neither an ELF program nor a script with a #! line")


class Launch(Base):
    def test_policy_errors(self):
        bad = self.write("bad.toml", POLICY + "nonsense = 1\n")
        result = self.run_latched("true", options=["-p", bad])
        self.assertEqual((result.returncode, result.stdout), (125, ""))
        self.assertRegex(result.stderr, "^latchkey: " + re.escape(bad) + r":6:1: .*nonsense.*\n$")
        gone = self.path("gone.toml")
        self.refused(self.run_latched("true", options=["-p", gone]), 125,
                     gone + ": No such file or directory")

    def test_policy_of_another_program(self):
        file = self.write("p.toml", "program = [\"/usr/bin/curl\"]\n" + POLICY)
        self.refused(
            self.run_latched("/usr/bin/true", options=["-p", file]), 125,
            file + ": its program list (\"/usr/bin/curl\") does not hold \"/usr/bin/true\"")

    def test_shim(self):
        result = self.call("run", "true", env={"LATCHKEY_SHIM": "/no/shim.so"})
        self.refused(result, 125, "/no/shim.so: No such file or directory")
        text = self.write("shim.so", "x")
        self.refused(self.call("run", "true", env={"LATCHKEY_SHIM": text}), 125,
                     text + ": not an ELF file")

    def test_no_broker(self):
        self.refused(self.run_latched("true"), 125,
                     f"no broker at {self.socket}: start latchkeyd there")
        self.refused(self.call("run", "true", env={"LATCHKEY_SOCKET": self.socket}), 125,
                     f"no broker at {self.socket}: start latchkeyd there")

    def test_usage(self):
        self.refused(self.call("run"), 125, "run: PROG is missing (see latchkey run --help)")
        self.refused(self.call("run", "--"), 125, "run: PROG is missing (see latchkey run --help)")
        self.refused(self.call("run", "--bogus", "true"), 125,
                     "The following argument was not expected: --bogus (see latchkey --help)")
        self.assertEqual(self.call("run", "-p").returncode, 125)
        self.assertEqual(self.call("run", "--help").returncode, 0)

    def test_refused_session(self):
        self.start_broker()
        program = self.path("refused")
        shutil.copy("/bin/true", program)
        self.refused(self.run_latched(program), 125, "not today (policy-discard)")

    def test_environment_and_session(self):
        self.start_broker()
        older = self.path("liblatchkey.so")
        shutil.copy(SHIM, older)
        result = self.run_latched("env", env={"LD_PRELOAD": older, "LATCHKEY_POLICY": "x",
                                              "KEPT": "1"})
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        self.assertIn("LD_PRELOAD=" + SHIM, lines)
        self.assertIn("LATCHKEY_SOCKET=" + self.socket, lines)
        self.assertIn("LATCHKEY_TOKEN=" + bytes(range(1, 33)).hex(), lines)
        self.assertIn("KEPT=1", lines)
        self.assertNotIn("LATCHKEY_POLICY=x", lines)
        with open(self.socket + ".seen") as seen:
            self.assertRegex(seen.read(), r"^11 /usr/bin/env \d+ -\n$")

    def test_policy_reaches_the_broker(self):
        self.start_broker()
        file = self.write("p.toml", "program = [\"/bin/sh\"]\n" + POLICY)
        result = self.run_latched("/usr/bin/sh", "-c", "echo $$", options=["-p", file])
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(self.socket + ".seen") as seen:
            # The pidfd is the program's own; the program has the name the policy gives it.
            self.assertEqual(seen.read(),
                             f"9 /bin/sh {result.stdout.strip()} program = [\"/bin/sh\"]\n")

    def test_arguments(self):
        self.start_broker()
        script = self.write("args", "#!/usr/bin/env python3\nimport sys\nprint(sys.argv)\n")
        words = ["-v", "--socket", "x", "--", "run", "", "a b", "--help"]
        result = self.run_latched(script, *words)
        self.assertEqual(result.stdout, str([script, *words]) + "\n", result.stderr)
        result = self.call("run", "--socket", self.socket, script, *words)
        self.assertEqual(result.stdout, str([script, *words]) + "\n", result.stderr)
        result = self.call("run", "--socket=" + self.socket, script, "--", "-p")
        self.assertEqual(result.stdout, str([script, "--", "-p"]) + "\n", result.stderr)

    def test_status(self):
        self.start_broker()
        self.assertEqual(self.run_latched("sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.run_latched("sh", "-c", "kill -TERM $$").returncode, -signal.SIGTERM)

    def test_inheritance(self):
        """Descriptors, signal mask and dispositions are what they were without the launcher."""
        self.start_broker()
        listing = "import os\nprint(sorted(os.listdir('/proc/self/fd')))\n" \
                  "print([l for l in open('/proc/self/status')\n" \
                  "       if l[:4] in ('SigP', 'SigB', 'SigI', 'SigC')])\n"

        def prepare():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)

        with open("/dev/null") as extra:
            latched = self.run_latched("python3", "-c", listing, pass_fds=[extra.fileno()],
                                       preexec_fn=prepare, restore_signals=False)
            plain = subprocess.run(["python3", "-c", listing], capture_output=True, text=True,
                                   pass_fds=[extra.fileno()], preexec_fn=prepare, timeout=30,
                                   stdin=subprocess.DEVNULL, restore_signals=False)
        self.assertEqual(latched.stdout, plain.stdout, latched.stderr)

    def test_io_uring(self):
        """A policy that denies io_uring has the kernel answer ENOSYS to the program and its children."""
        self.start_broker()
        ask = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n" \
              "libc.syscall(425, 0, None)\nprint(ctypes.get_errno())\n"
        command = ["sh", "-c", "python3 -c \"$0\"; python3 -c \"$0\"; true", ask]
        plain = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        process = POLICY + "[process]\ndeny_io_uring = "
        for value, expected in (("false", plain), ("true", f"{errno.ENOSYS}\n" * 2)):
            file = self.write("p.toml", process + value + "\n")
            result = self.run_latched(*command, options=["-p", file])
            self.assertEqual((result.returncode, result.stdout), (0, expected), result.stderr)

    def test_capabilities(self):
        self.start_broker()
        net = 1 << 12 | 1 << 13

        def sets(options):
            result = self.run_latched("cat", "/proc/self/status", options=options)
            found = re.findall(r"^Cap(\w+):\s*([0-9a-f]+)$", result.stdout, re.M)
            self.assertEqual(len(found), 5, result.stderr)
            return {name: int(value, 16) for name, value in found}

        kept, dropped = sets(["--keep-net-caps"]), sets([])
        if os.geteuid() == 0:
            self.assertNotEqual(kept["Bnd"] & net, 0)
            self.assertEqual(dropped, {name: value & ~net for name, value in kept.items()})
        else:
            self.assertEqual(dropped["Eff"] & net, 0)


class Queries(Base):
    def test_no_broker(self):
        for verb in (["list"], ["list", "--json"], ["show", "3"], ["break", "3"], ["resume", "3"],
                     ["watch"]):
            self.refused(self.call(*verb, "--socket", self.socket), 3,
                         f"no broker at {self.socket}: start latchkeyd")

    def test_list(self):
        self.start_broker()
        result = self.call("list", "--socket", self.socket)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0].split(), ["ID", "STATE", "PROTO", "LOCAL", "REMOTE", "PEER",
                                            "PROTECTION", "PROGRAM", "PID"])
        self.assertEqual(lines[1].split(), ["3", "LISTENER", "tcp", "10.9.0.1:80", "*", "-", "-",
                                            "/usr/sbin/nginx", "99"])
        self.assertEqual(lines[2].split(),
                         ["8", "ESTABLISHED", "tcp", "10.9.0.1:80", "10.9.0.2:40000",
                          "b.example\\x1b[2J", "esp/aes-gcm-16:256", "/usr/sbin/nginx", "99"])
        self.assertEqual(len(lines), 3)

    def test_json(self):
        self.start_broker()
        document = json.loads(self.call("list", "--json", "--socket", self.socket).stdout)
        self.assertEqual(document["schema"], 1)
        self.assertEqual([latch["id"] for latch in document["latches"]], [3, 8])
        shown = json.loads(self.call("show", "8", "--json", "--socket", self.socket).stdout)
        self.assertEqual(shown, {"schema": 1, "latch": document["latches"][1]})
        self.assertEqual(shown["latch"]["remote"], {"address": "10.9.0.2", "port": 40000})

    def test_show(self):
        self.start_broker()
        result = self.call("show", "8", "--socket", self.socket)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("reqid: 42\n", result.stdout)
        self.refused(self.call("show", "4", "--socket", self.socket), 1, "no latch 4")

    def test_usage(self):
        for words in ([], ["bogus"], ["show"], ["show", "x"], ["show", "-1"], ["list", "extra"],
                      ["check"], ["break"], ["break", "0"], ["break", "8x"], ["resume"],
                      ["resume", "x"], ["watch", "8"], ["break", "8", "--json"]):
            result = self.call(*words)
            self.assertEqual(result.returncode, 2, words)
            self.assertRegex(result.stderr, r"^latchkey: .*\n$", words)
        self.assertEqual(self.call("--version").stdout, "latchkey 0.1.0\n")
        self.assertEqual(self.call("--help").returncode, 0)

    def test_standard_output_lost(self):
        self.start_broker()
        with open("/dev/full", "w") as full:
            result = subprocess.run([LATCHKEY, "list", "--socket", self.socket], stdout=full,
                                    stderr=subprocess.PIPE, text=True, timeout=30)
        self.assertEqual(result.returncode, 1)


class Control(Base):
    def test_break(self):
        self.start_broker()
        result = self.call("break", "8", "--socket", self.socket)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        self.refused(self.call("break", "3", "--socket", self.socket), 1,
                     "latch 3 is a listener: it ends when its program closes it")
        self.refused(self.call("break", "4", "--socket", self.socket), 1, "no latch 4")

    def test_resume(self):
        self.start_broker()
        self.refused(self.call("resume", "8", "--socket", self.socket), 1, "latch 8 is not broken")
        self.refused(self.call("resume", "4", "--socket", self.socket), 1, "no latch 4")


class Doctor(Base):
    """What it says of this machine is another's to test; here, how it says it."""

    def lines(self, *options):
        result = self.call("doctor", "--socket", self.socket, *options)
        self.assertEqual(result.stderr, "")
        lines = result.stdout.splitlines()
        for line in lines:
            self.assertRegex(line, r"^(ok    |BAD   .+: |note  ).+$")
        self.assertEqual(result.returncode, 1 if any(l.startswith("BAD") for l in lines) else 0)
        return lines

    def test_broker(self):
        lines = self.lines()
        self.assertEqual([l for l in lines if self.socket in l],
                         [f"BAD   no broker at {self.socket}: start latchkeyd; until then only "
                          "root's latchkey run can start a private one"])
        self.start_broker()
        self.assertEqual([l for l in self.lines() if self.socket in l],
                         [f"ok    a broker answers at {self.socket} (protocol 1, of this network "
                          "namespace)"])

    def test_program(self):
        self.assertIn("ok    the shim is " + SHIM, self.lines())
        self.assertIn("ok    /usr/bin/env can be run under Latchkey", self.lines("env"))
        self.assertIn("BAD   nothing: no such program in PATH: name a program that can be run",
                      self.lines("nothing"))
        self.assertEqual(self.call("doctor", "a", "b").returncode, 2)


class Check(Base):
    def test_files(self):
        good = self.write("good.toml", POLICY)
        bad = self.write("bad.toml", POLICY + "nonsense = 1\nrubbish = 2\n")
        result = self.call("check", "--resolv-conf", "/dev/null", good)
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (0, good + ": ok\n", ""))
        result = self.call("check", "--resolv-conf", "/dev/null", bad, good, self.path("gone"))
        self.assertEqual((result.returncode, result.stdout), (1, good + ": ok\n"))
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 3, lines)
        self.assertTrue(lines[0].startswith(f"latchkey: {bad}:6:1: "), lines)
        self.assertTrue(lines[1].startswith(f"latchkey: {bad}:7:1: "), lines)
        self.assertEqual(lines[2], f"latchkey: {self.path('gone')}: No such file or directory")


class Sa(Base):
    """Calls that go wrong: the SAs themselves need ESP, and are //tools/latchkeyd/kernel's."""

    def sa(self, verb, **changes):
        words = {"secret-file": self.path("secret"), "local": "10.9.0.1", "remote": "10.9.0.2",
                 "reqid": "42", "id": "a", "peer-id": "b", "pad": self.path("pad.toml"), **changes}
        return self.call("sa", verb, *(f"--{name}={value}" for name, value in words.items()))

    def test_usage(self):
        self.write("secret", "x" * 32, 0o600)
        self.refused(self.sa("add", local="x"), 2, "sa: 'x' is no IP address")
        self.refused(self.sa("add", reqid="0"), 2, "sa: a reqid is a number from 1")
        for changes in ({"reqid": "-1"}, {"reqid": "4294967296"}, {"bogus": "1"}):
            self.assertEqual(self.sa("add", **changes).returncode, 2, changes)
        self.assertEqual(self.sa("list").returncode, 2)
        self.assertEqual(self.call("sa", "add", "--id", "a").returncode, 2)
        self.assertFalse(os.path.exists(self.path("pad.toml")))

    def test_refused(self):
        self.assertEqual(self.sa("add").returncode, 1)  # no secret
        self.write("secret", "x" * 32, 0o644)
        self.assertEqual(self.sa("add").returncode, 1)  # others may read it
        self.write("secret", "x" * 32, 0o600)
        self.assertEqual(self.sa("add", suite="rot13").returncode, 1)
        if os.path.exists(self.path("pad.toml")):  # no entry without its SAs
            with open(self.path("pad.toml")) as pad:
                self.assertNotIn("[[sa]]", pad.read())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
