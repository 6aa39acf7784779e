#!/usr/bin/python3
"""The private broker from outside: when it starts, what it holds, whose child it is.

Usage: private_test.py LATCHKEY FAKE_BROKER. What needs root runs in a user namespace of its own.
"""
import os
import re
import shutil
import subprocess
import sys
import unittest

from cli_base import BROKER, LATCHKEY, Base


class Private(Base):
    """In namespaces of their own, with an installed tree whose latchkeyd is the fake one."""

    def setUp(self):
        super().setUp()
        os.makedirs(self.path("bin"))
        os.makedirs(self.path("sbin"))
        shutil.copy(LATCHKEY, self.path("bin/latchkey"))
        self.environment["FOLDER"] = self.folder

    def use_broker(self, text=None):
        if text is None:
            shutil.copy(BROKER, self.path("sbin/latchkeyd"))
        else:
            self.write("sbin/latchkeyd", text)

    def inside(self, script):
        # The process namespace ends the brokers with the test.
        return subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork",
             "--kill-child", "--mount-proc", "sh", "-c",
             "mount -t tmpfs none /run && PATH=$FOLDER/bin:$PATH && " + script],
            env=self.environment, text=True, timeout=20, stdin=subprocess.DEVNULL,
            capture_output=True)

    def test_started(self):
        self.use_broker()
        result = self.inside(
            # The substitution ends with the program: the broker holds neither stream nor fd 7.
            "set -e; out=$(latchkey run env 7>&1 2>&1); echo \"$out\"; ls /run/latchkey/private; "
            "latchkey list | wc -l; cat /run/latchkey/private/*.seen; "
            "pid=$(pgrep -x latchkeyd); "
            "echo ppid $(ps -o ppid= $pid) sid $(test $(ps -o sid= $pid) != $(ps -o sid= $$) && "
            "echo own); ls -l /proc/$pid/fd | grep -c -E 'pipe' || true; "
            "tr '\\0' '\\n' < /proc/$pid/environ")
        self.assertEqual(result.returncode, 0, result.stderr)
        socket_path = re.search(r"^LATCHKEY_SOCKET=(/run/latchkey/private/(\d+)\.sock)$",
                                result.stdout, re.M)
        self.assertTrue(socket_path, result.stdout)
        launcher = socket_path.group(2)
        self.assertIn(f"\n{launcher}\n{launcher}.sock\n", result.stdout)
        self.assertIn("\n3\n11 /usr/bin/env " + launcher + " -\n", result.stdout)
        self.assertRegex(result.stdout, r"\nppid 1 sid own\n0\nPATH=\S+\n$")

    def test_no_child_to_wait_for(self):
        self.use_broker()
        result = self.inside("latchkey run python3 -c 'import os; os.wait()'")
        self.assertIn("ChildProcessError", result.stderr)

    def test_broker_of_another_namespace(self):
        self.use_broker()
        result = self.inside(
            "mkdir /run/latchkey; "
            "unshare --net $FOLDER/sbin/latchkeyd --socket /run/latchkey/broker.sock "
            ">/dev/null 2>&1 & "
            "while ! ls /run/latchkey/broker.sock; do sleep 0.01; done >/dev/null 2>&1; sleep 0.2; "
            "latchkey run printenv LATCHKEY_SOCKET; latchkey list | wc -l")
        self.assertRegex(result.stdout, r"^/run/latchkey/private/\d+\.sock\n3\n$", result.stderr)

    def test_streams_closed(self):
        self.use_broker()
        result = self.inside("latchkey run sh -c 'echo here >/run/out' 0<&- 1>&- 2>&-; "
                             "cat /run/out; pid=$(pgrep -x latchkeyd); readlink /proc/$pid/fd/0")
        self.assertEqual(result.stdout, "here\n/dev/null\n", result.stderr)

    def test_broken_broker(self):
        self.use_broker("#!/bin/sh\necho first >&2\necho latchkeyd: boom >&2\nexit 1\n")
        result = self.inside("latchkey run true")
        self.assertEqual(result.returncode, 125)
        self.assertRegex(result.stderr, r"^latchkey: private broker: latchkeyd: boom "
                         r"\(/run/latchkey/private/\d+/log\)\n$")

    def test_not_for_a_chosen_socket(self):
        self.use_broker()
        result = self.inside("latchkey run --socket /run/x.sock true; echo $?; ls -A /run")
        self.assertEqual(result.stdout, "125\n")

    def test_folder_of_others(self):
        self.use_broker()
        result = self.inside("mkdir -m 777 /run/latchkey; latchkey run true")
        self.assertEqual(result.returncode, 125)
        self.assertIn("others may write to it", result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
