#!/usr/bin/python3
"""latchkey's verbs about policies: keygen, sign, verify (with Debian's minisign both ways), check, explain.

Usage: policy_test.py LATCHKEY FAKE_BROKER. No broker is asked here.
"""
import json
import os
import re
import subprocess
import sys
import unittest

from cli_base import LATCHKEY, Base

GOOD = """latchkey = 1
application = "t"
[peer.p]
id = ["bob"]
[[rule]]
name = "web"
direction = "out"
remote_port = [80]
action = "protect"
peer = "p"
[default]
action = "discard"
"""


class Signing(Base):
    def setUp(self):
        super().setUp()
        self.policy = self.write("p.toml", GOOD, 0o644)
        self.key, self.public = self.path("s.key"), self.path("s.pub")

    def keygen(self):
        result = self.call("keygen", "-W", "-s", self.key, "-p", self.public)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.removeprefix("public key: ").strip()

    def minisign(self, *arguments):
        return subprocess.run(["minisign", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=60)

    def test_ours_by_minisign(self):
        self.keygen()
        self.assertEqual(self.call("sign", "--key", self.key, self.policy).returncode, 0)
        result = self.minisign("-V", "-p", self.public, "-m", self.policy)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("file:p.toml", result.stdout)

    def test_minisigns_by_us(self):
        self.assertEqual(self.minisign("-G", "-W", "-p", self.public, "-s", self.key).returncode, 0)
        self.assertEqual(self.minisign("-S", "-H", "-s", self.key, "-m", self.policy).returncode, 0)
        result = self.call("verify", "--key", self.public, self.policy)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn(": good signature by key ", result.stdout)
        # Its secret key signs here as well, and its legacy signatures are refused.
        self.assertEqual(self.call("sign", "--key", self.key, self.policy).returncode, 0)
        self.assertEqual(self.minisign("-V", "-p", self.public, "-m", self.policy).returncode, 0)
        os.remove(self.policy + ".minisig")
        self.assertEqual(self.minisign("-S", "-l", "-s", self.key, "-m", self.policy).returncode, 0)
        result = self.call("verify", "--key", self.public, self.policy)
        self.assertEqual(result.returncode, 1)
        self.assertIn('without a hash ("Ed")', result.stderr)

    def test_minisign_signs_with_our_key(self):
        text = self.keygen()
        self.assertEqual(self.minisign("-S", "-H", "-s", self.key, "-m", self.policy).returncode, 0)
        self.assertEqual(self.call("verify", "--key", text, self.policy).returncode, 0)

    def test_refusals(self):
        self.keygen()
        again = self.call("keygen", "-W", "-s", self.key, "-p", self.path("other.pub"))
        self.refused(again, 1, self.key + ": File exists")
        self.assertFalse(os.path.exists(self.path("other.pub")))
        self.assertEqual(os.stat(self.key).st_mode & 0o777, 0o600)
        self.refused(self.call("verify", "--key", self.public, self.policy), 1,
                     self.policy + ".minisig: No such file or directory")
        self.call("sign", "--key", self.key, self.policy)
        self.write("p.toml", GOOD + "#", 0o644)
        self.refused(self.call("verify", "--key", self.public, self.policy), 1,
                     self.policy + ": verify signature: it is not of this text, or not by this key (bad-signature)")
        self.write("p.toml", "not_after = 2020-01-01\n" + GOOD, 0o644)
        self.call("sign", "--key", self.key, self.policy)
        self.refused(self.call("verify", "--key", self.public, self.policy), 1,
                     self.policy + ": its last day (not_after) is over (policy-expired)")

    def test_password(self):
        def call(*arguments, password):
            return subprocess.run([LATCHKEY, *arguments], input=password, capture_output=True, text=True,
                                  check=False, timeout=120)

        made = call("keygen", "-s", self.key, "-p", self.public, password="correct\n")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertEqual(call("sign", "--key", self.key, self.policy, password="correct\n").returncode, 0)
        self.assertEqual(self.call("verify", "--key", self.public, self.policy).returncode, 0)
        wrong = call("sign", "--key", self.key, self.policy, password="wrong\n")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("the password is wrong", wrong.stderr)
        none = call("sign", "--key", self.key, self.policy, password="")
        self.assertIn("no password", none.stderr)


class Checking(Base):
    def test_warnings_are_no_errors(self):
        policy = self.write("p.toml", GOOD.replace('peer = "p"\n', ""), 0o644)
        result = self.call("check", "--resolv-conf", "/dev/null", policy)
        self.assertEqual((result.returncode, result.stdout), (0, policy + ": ok\n"))
        self.assertEqual(result.stderr,
                         f'latchkey: {policy}:5:1: warning: rule "web" names no peer: any authenticated peer will do\n')

    def test_grants(self):
        optional = GOOD.replace('"protect"', '"protect-or-bypass"')
        says = 'rule "web" may go in clear: where the system protects, that needs the grant "bypass"'

        def warnings(policy, system=None):
            if system is not None:
                self.write("system.toml", "latchkey = 1\n" + system, 0o644)
            result = self.call("check", "--resolv-conf", "/dev/null", "--system", self.path("system.toml"), policy)
            self.assertEqual(result.returncode, 0)
            return result.stderr.partition(": warning: ")[2]

        policy = self.write("p.toml", optional, 0o644)
        self.assertEqual(warnings(policy), says + "\n")
        lacking = f"{says}, which {self.path('system.toml')} does not give\n"
        self.assertEqual(warnings(policy, ""), lacking)
        self.assertEqual(warnings(policy, '[[grant]]\nuser = "*"\ngrants = ["weaken"]\n'), lacking)
        self.assertEqual(warnings(policy, '[[grant]]\nuser = "*"\ngrants = ["bypass"]\n'), "")
        # Of its users each must have it.
        some = '[[grant]]\nuser = "1001"\ngrants = ["bypass"]\n'
        self.assertEqual(warnings(policy, some), lacking)
        policy = self.write("p.toml", 'users = [1001]\n' + optional, 0o644)
        self.assertEqual(warnings(policy, some), "")
        policy = self.write("p.toml", 'users = [1001, 1002]\n' + optional, 0o644)
        self.assertEqual(warnings(policy, some), lacking)
        # Or it comes with the signature.
        policy = self.write("p.toml", "serial = 1\n" + optional, 0o644)
        made = self.call("keygen", "-W", "-s", self.path("s.key"), "-p", self.path("s.pub"))
        signer = f'[[signer]]\nkey = "{made.stdout.removeprefix("public key: ").strip()}"\ngrants = ["bypass"]\n'
        self.assertEqual(warnings(policy, signer), lacking)
        self.call("sign", "--key", self.path("s.key"), policy)
        self.assertEqual(warnings(policy, signer), "")
        self.assertEqual(warnings(policy, signer + 'applications = ["other"]\n'), lacking)
        self.write("p.toml", "serial = 2\n" + optional, 0o644)
        self.assertEqual(warnings(policy, signer), lacking)

    def test_names_behind_the_fence(self):
        servers = self.write("resolv.conf", "nameserver 192.0.2.53\n", 0o644)
        policy = self.write("p.toml", GOOD, 0o644)
        rule = 'name = "dns" direction = "out" remote = ["192.0.2.53"] remote_port = [53] action = "bypass"'
        result = self.call("check", "--resolv-conf", servers, policy)
        self.assertEqual((result.returncode, result.stdout), (0, policy + ": ok\n"))
        self.assertRegex(result.stderr, "^latchkey: " + policy + ": warning: behind the fence .*" + re.escape(rule) + "\n$")
        asked = ("explain", "--resolv-conf", servers, "--socket", self.path("no.sock"), "-p", policy, "--out", "udp",
                 "192.0.2.53")
        self.assertIn(rule, self.call(*asked, "53").stderr)
        self.assertEqual(self.call(*asked, "80").stderr, "")
        # With the rule that was told nothing is left to say.
        told = "[[rule]]\n" + re.sub(" (?=[a-z_]+ =)", "\n", rule) + "\n"
        policy = self.write("p.toml", GOOD.replace("[[rule]]", told + "[[rule]]"), 0o644)
        result = self.call("check", "--resolv-conf", servers, policy)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        # But for a system that protects them.
        protects = 'latchkey = 1\n[[rule]]\nname = "floor"\naction = "protect"\nremote = ["192.0.2.0/24"]\n'
        system = self.write("system.toml", protects, 0o644)
        result = self.call("check", "--system", system, "--resolv-conf", servers, policy)
        self.assertIn(policy + ": warning: behind the fence ", result.stderr)

    def test_every_error_of_a_file(self):
        policy = self.write("p.toml", GOOD.replace('"out"', '"up"').replace("[80]", "[0]"), 0o644)
        result = self.call("check", "--resolv-conf", "/dev/null", policy)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual([line.split(": ")[1] for line in result.stderr.splitlines()],
                         [policy + ":7:13", policy + ":8:16"])


class Explaining(Base):
    def explain(self, *arguments):
        return self.call("explain", "--socket", self.path("no.sock"), "--system", self.path("system.toml"),
                         "--pad", self.path("pad.toml"), *arguments)

    def test_from_the_files(self):
        policy = self.write("p.toml", GOOD, 0o644)
        result = self.explain("-p", policy, "--out", "tcp", "192.0.2.1", "80", "--user", "1000")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("facts:    files alone", result.stdout)
        self.assertIn(f'rule:     {policy}:5: rule "web", protect\n', result.stdout)
        self.assertIn("decision: PROTECT\n", result.stdout)
        result = self.explain("-p", policy, "--out", "tcp", "192.0.2.1", "81")
        self.assertEqual(result.returncode, 1)
        self.assertIn("decision: REFUSED: policy-discard (EACCES)\n", result.stdout)
        self.assertIn("to change: ", result.stdout)

    def test_without_a_connection(self):
        def explained(first, last, *flow):
            rules = f'latchkey = 1\napplication = "a"\n[[rule]]\nname = "first"\n{first}\n[[rule]]\nname = "last"\n{last}\n'
            policy = self.write("p.toml", rules, 0o644)
            return policy, self.explain("-p", policy, *flow, "192.0.2.1", "90"), self.call("check", policy).stderr
        out = 'direction = "out"\naction = "bypass"'
        policy, said, _ = explained(out, 'action = "discard"', "--out", "udp")
        self.assertIn(f'but:      without a connection, {policy}:7: rule "last", discard: what is about incoming datagrams too comes first\n', said.stdout)
        for flow in ("--out", "tcp"), ("--in", "udp"):
            self.assertNotIn("but:", explained(out, 'action = "discard"', *flow)[1].stdout)
        kept, passes = 'direction = "out"\naction = "discard"', 'action = "bypass"'
        policy, said, warned = explained(kept, passes, "--in", "udp")
        self.assertIn(f'but:      without a connection, {policy}:3: rule "first", discard: what is let in gives way to it, for it would be let out too\n', said.stdout)
        self.assertEqual(json.loads(explained(kept, passes, "--in", "udp", "--json")[1].stdout)["explanations"][0]["unconnected"]["name"], "first")
        self.assertIn('rule "last" gives way to rule "first" where a UDP socket without a connection is concerned', warned)
        self.assertNotIn("but:", explained(kept, passes, "--out", "udp")[1].stdout)

    def test_who_is_behind_by_the_pad(self):
        policy = self.write("p.toml", GOOD, 0o644)
        pad = '[[sa]]\nreqid = 7\nremote = ["192.0.2.1"]\nid = "%s"\n'
        asked = ("-p", policy, "--out", "tcp", "192.0.2.1", "80")
        self.assertNotIn("PAD:", self.explain(*asked).stdout)
        self.write("pad.toml", pad % "bob", 0o644)
        name = self.path("pad.toml")
        self.assertIn(f'PAD:      {name}: reqid 7 is "bob"\n', self.explain(*asked).stdout)
        self.write("pad.toml", pad % "carol", 0o644)
        self.assertIn(f'PAD:      {name}: reqid 7 is "carol", not the peer asked for\n', self.explain(*asked).stdout)
        answer = json.loads(self.explain(*asked, "--json").stdout)["explanations"][0]
        self.assertEqual(answer["pad"], [{"reqid": 7, "spi": None, "peer_id": "carol", "fits": False}])
        self.assertIn(f"PAD:      {name}: names nobody there\n",
                      self.explain(*asked[:-2], "192.0.2.9", "80").stdout)
        self.write("pad.toml", pad % "*.x", 0o644)
        self.refused(self.explain(*asked), 1, f'{name}:4:6: id is "*.x": expected a name without "*"')

    def test_floor_and_grant(self):
        policy = self.write("p.toml", GOOD.replace("protect", "bypass").replace('peer = "p"\n', ""), 0o644)
        self.write("system.toml", 'latchkey = 1\n[[rule]]\nname = "floor"\naction = "protect"\n'
                   '[[grant]]\nuser = "1001"\ngrants = ["bypass"]\n', 0o644)
        asked = ("-p", policy, "--out", "tcp", "192.0.2.1", "80", "--json", "--user")
        result = self.explain(*asked, "1000")
        self.assertEqual(result.returncode, 1)
        answer = json.loads(result.stdout)["explanations"][0]
        self.assertEqual((answer["decision"], answer["reason"]), ("REFUSED", "unprivileged-bypass"))
        self.assertEqual(answer["system"], {"action": "protect", "rule": "floor", "spd": None})
        self.assertFalse(answer["live"])
        result = self.explain(*asked, "1001")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(json.loads(result.stdout)["explanations"][0]["decision"], "CLEAR")

    def test_usage(self):
        self.refused(self.explain("tcp", "192.0.2.1", "80"), 2,
                     "explain: expected --out or --in (see latchkey explain --help)")
        self.refused(self.explain("--out", "sctp", "192.0.2.1", "80"), 2, 'explain: "sctp": expected tcp or udp')
        self.refused(self.explain("--out", "tcp", "192.0.2.1", "0"), 2, "explain: expected a port from 1 to 65535")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
