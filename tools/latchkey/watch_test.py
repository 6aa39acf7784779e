#!/usr/bin/python3
"""latchkey watch from outside.

Usage: watch_test.py LATCHKEY FAKE_BROKER.
"""
import json
import os
import signal
import subprocess
import sys
import unittest

from cli_base import LATCHKEY, Base


class Watch(Base):
    FLOW = "tcp 10.9.0.1:80 <- 10.9.0.2:40000 peer b.example\\x1b[2J rule server " \
           "program /usr/sbin/nginx pid 99\n"
    LINES = ["2023-11-14T22:13:20Z latch 8 new -> ESTABLISHED: none " + FLOW,
             "2023-11-14T22:13:21Z latch 8 stalls: no-sa " + FLOW,
             "2023-11-14T22:13:22Z latch 8 ESTABLISHED -> BROKEN: admin " + FLOW]

    def over(self):
        return f"latchkey: {self.socket}: the broker closed the connection: it has ended, or this " \
               "was too slow for it; what happened since is not shown\n"

    def watch(self, *options):
        watching = subprocess.Popen([LATCHKEY, "watch", "--socket", self.socket, *options],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(watching.wait)
        self.addCleanup(watching.kill)
        self.addCleanup(watching.stdout.close)
        self.addCleanup(watching.stderr.close)
        return watching

    def test_lines_come_as_they_happen(self):
        self.start_broker()
        for number in (signal.SIGINT, signal.SIGTERM):
            watching = self.watch()
            self.assertEqual([watching.stdout.readline() for _ in self.LINES], self.LINES)
            watching.send_signal(number)
            self.assertEqual(watching.wait(10), 0)
            self.assertEqual((watching.stdout.read(), watching.stderr.read()), ("", ""))

    def test_json_lines(self):
        self.start_broker()
        watching = self.watch("--json")
        events = [json.loads(watching.stdout.readline()) for _ in self.LINES]
        self.assertEqual([event["schema"] for event in events], [1, 1, 1])
        self.assertEqual([event["event"] for event in events], ["state", "stall", "state"])
        self.assertEqual([event["from"] for event in events], [None, "ESTABLISHED", "ESTABLISHED"])
        self.assertEqual([event["reason"] for event in events], [None, "no-sa", "admin"])
        self.assertEqual(events[2]["time"], "2023-11-14T22:13:22Z")
        self.assertEqual(events[2]["direction"], "in")
        self.assertEqual(events[2]["broker"], self.socket)
        self.assertEqual(events[2]["latch"]["state"], "BROKEN")
        self.assertEqual(events[2]["latch"]["remote"], {"address": "10.9.0.2", "port": 40000})

    def test_end_of_the_broker(self):
        open(self.socket + ".end", "w").close()
        self.start_broker()
        result = self.call("watch", "--socket", self.socket)
        self.assertEqual((result.returncode, result.stdout), (3, "".join(self.LINES)))
        self.assertEqual(result.stderr, self.over())

    def test_damaged(self):
        open(self.socket + ".damage", "w").close()
        self.start_broker()
        result = self.call("watch", "--socket", self.socket)
        self.assertEqual((result.returncode, result.stdout), (3, "".join(self.LINES)))
        self.assertIn("the broker's event is damaged", result.stderr)

    def test_refused(self):
        open(self.socket + ".limit", "w").close()
        self.start_broker()
        self.refused(self.call("watch", "--socket", self.socket), 1,
                     self.socket + ": refused (limit): too many watch")

    def test_nobody_reads(self):
        self.start_broker()
        # Before the first line, and while there is nothing to write.
        reader, writer = os.pipe()
        os.close(reader)
        watching = subprocess.Popen([LATCHKEY, "watch", "--socket", self.socket], stdout=writer,
                                    stderr=subprocess.PIPE, text=True)
        os.close(writer)
        self.assertEqual(watching.communicate(timeout=10), (None, ""))
        self.assertEqual(watching.returncode, 0)
        watching = self.watch()
        self.assertEqual([watching.stdout.readline() for _ in self.LINES], self.LINES)
        watching.stdout.close()
        self.assertEqual(watching.wait(10), 0)
        self.assertEqual(watching.stderr.read(), "")

    def test_standard_output_lost(self):
        self.start_broker()
        with open("/dev/full", "w") as full:
            result = subprocess.run([LATCHKEY, "watch", "--socket", self.socket], stdout=full,
                                    stderr=subprocess.PIPE, text=True, timeout=30)
        self.assertEqual((result.returncode, result.stderr),
                         (1, "latchkey: standard output: No space left on device\n"))

    def test_ignored_signals_stay_ignored(self):
        self.start_broker()
        watching = subprocess.Popen(
            [LATCHKEY, "watch", "--socket", self.socket], stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        self.assertEqual([watching.stdout.readline() for _ in self.LINES], self.LINES)
        watching.send_signal(signal.SIGINT)
        with self.assertRaises(subprocess.TimeoutExpired):
            watching.wait(0.3)
        watching.send_signal(signal.SIGTERM)
        self.assertEqual(watching.wait(10), 0)
        watching.stdout.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
