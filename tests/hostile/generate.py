#!/usr/bin/python3
"""generate.py FOLDER LATCHKEY: a thousand policies that must be refused, the same ones each time.

Writes FOLDER/NNNN.toml (and, for those that are signed, NNNN.toml.minisig), the keys they need, and
FOLDER/expected: one line each, NAME, LINE and WORDS, split by tabs. LINE is where the mistake is, 0
for the file as a whole; WORDS is a part of the message.
"""
import os
import random
import subprocess
import sys

GOOD = """latchkey    = 1
application = "hostile"
program     = ["/bin/touch"]
users       = ["root", 0]
serial      = 100
not_after   = 2099-12-31
[protection.strong]
protocol     = "esp"
mode         = "transport"
encryption   = ["aes-gcm-16", "aes-cbc"]
integrity    = ["hmac-sha2-256"]
min_key_bits = 256
replay       = "required"
esn          = "any"
sharing      = "shared"
pin          = "auto"
[peer.server]
id   = ["server.example", "*.db.example"]
auth = ["pubkey", "manual"]
[[rule]]
name            = "database"
direction       = "out"
protocol        = "tcp"
remote          = ["10.0.5.0/24", "fd00:5::/64"]
remote_port     = [5432, "6000-6010"]
local           = ["10.0.1.0/24"]
action          = "protect"
protection      = "strong"
peer            = "server"
reqid           = 42
on_break        = "reset"
acquire_timeout = "5s"
[default]
action = "discard"
"""
LINES = GOOD.splitlines()
# key -> kind of its value; the same key may stand in several tables.
NUMBERS = {"latchkey", "serial", "min_key_bits", "reqid"}
LISTS = {"program", "users", "encryption", "integrity", "id", "auth", "remote", "remote_port", "local"}


def key_of(line):
    return line.split("=")[0].strip() if "=" in line else ""


KEYED = [(number, key_of(line)) for number, line in enumerate(LINES, 1) if key_of(line)]


class Writer:
    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.expected = open(os.path.join(folder, "expected"), "w")

    def put(self, text, line, words, signature=None):
        name = f"{self.count:04}.toml"
        self.count += 1
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        if signature is not None:
            with open(os.path.join(self.folder, name + ".minisig"), "wb") as file:
                file.write(signature)
        self.expected.write(f"{name}\t{line}\t{words}\n")

    def line(self, number, text, words, at=None):
        """The good policy with one line changed."""
        lines = list(LINES)
        lines[number - 1] = text
        self.put("\n".join(lines) + "\n", at or number, words)


def truncated(writer):
    # Cut behind "=": whatever the line, its value is missing.
    for number, key in KEYED:
        cut = "\n".join(LINES[:number - 1] + [LINES[number - 1].split("=")[0] + "="])
        for tail in ("", " ", "\t", " #", ' "', " ["):
            writer.put(cut + tail, number, "")


def duplicated(writer):
    for number, _ in KEYED:
        lines = list(LINES)
        lines.insert(number, lines[number - 1])
        writer.put("\n".join(lines) + "\n", number + 1, "")


def wrong_types(writer):
    values = ["true", "1.5", "{}", "2020-01-01T00:00:00Z", "[[]]", "nan"]
    for number, key in KEYED:
        for value in values:
            writer.line(number, f"{key} = {value}", "expected")
        if key in LISTS:
            writer.line(number, f'{key} = "text"', "expected a list")
            writer.line(number, f"{key} = []", "expected")
        elif key in NUMBERS:
            writer.line(number, f'{key} = "1"', "expected")
        elif key != "not_after":
            writer.line(number, f"{key} = 7", "expected")
            writer.line(number, f'{key} = ["text"]', "expected")


def octets(writer, dice):
    # What is no UTF-8, or a control character, anywhere at all.
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1", b"\x00",
                b"\x0b", b"\x7f"):
        for _ in range(18):
            number = dice.randrange(1, len(LINES) + 1)
            raw = [line.encode() for line in LINES]
            place = dice.randrange(len(raw[number - 1]) + 1)
            raw[number - 1] = raw[number - 1][:place] + bad + raw[number - 1][place:]
            writer.put(b"\n".join(raw) + b"\n", number, "")


def absurd(writer):
    def change(key, value, words="expected"):
        for number, each in KEYED:
            if each == key:
                writer.line(number, f"{key} = {value}", words)
                return
    for value in ("0", "-1", "9223372036854775808", "1e400", "0x1FFFFFFFFFFFFFFFFF"):
        change("serial", value, "")
        change("reqid", value, "")
    change("reqid", "4294967296")
    change("min_key_bits", "257")
    change("min_key_bits", "-1")
    change("min_key_bits", "99999999")
    change("latchkey", "2")
    for port in ("0", "65536", "-1", '"1-"', '"-1"', '"10-5"', '"1-65536"', '"0-1"', '" 1-2"', '"a"', '""'):
        change("remote_port", f"[{port}]")
    for prefix in ("10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "10.0.0", "::ffff:1.2.3.4/24", "", "any", "10.0.0.0/-1",
                   "10.0.0.0/08x", "fd00::1%eth0", "010.0.0.1", "1.2.3.4.5"):
        change("remote", f'["{prefix}"]')
        change("local", f'["{prefix}"]')
    for name in ("", "*@x", "a*.example", "a.*.example", "ip:x", "fqdn:", "x" * 256):
        change("id", f'["{name}"]')
    for suite in ("", "AES-GCM-16", "aes-gcm-16:256", "des", "hmac-sha1", "aes"):
        change("encryption", f'["{suite}"]')
    for suite in ("", "md5", "aes-gcm-16", "HMAC-SHA1"):
        change("integrity", f'["{suite}"]')
    for text in ("", "5", "5 s", "-5s", "11m", "0s", "1h", "5.5s", "99999999999999s"):
        change("acquire_timeout", f'"{text}"')
    for word in ("", "Protect", "allow", "system", "protect ", "none"):
        change("action", f'"{word}"')
    for word in ("udplite", "sctp", "6", ""):
        for number, key in KEYED:
            if key == "protocol" and number > 20:
                writer.line(number, f'protocol = "{word}"', "expected")
    change("application", '"' + "x" * 64 + '"')
    change("application", r'"\u0007"')
    change("program", '["bin/touch"]')
    change("program", '["/' + "x" * 255 + '"]')
    change("users", '[-1]')
    change("users", '[4294967295]')
    change("users", '["0x0"]')
    change("not_after", '"2099-12-31"')
    change("not_after", "2099-02-30", "")
    for count in (65, 1000):
        change("remote_port", "[" + ", ".join(str(port) for port in range(1, count + 1)) + "]")
    number = len(LINES) + 1
    for text, words in (("[" * 500000, ""), ("x = " + "[" * 17 + "]" * 17, "nested"), ("a." * 300 + "b = 1", ""),
                        ("x = " + "{a=" * 40 + "1" + "}" * 40, "nested"), ('x = """' + "y" * 1000, "")):
        writer.put(GOOD + text + "\n", 0 if text.endswith("y") else number, words)
    writer.put(GOOD + "#" * (1 << 20) + "\n", 0, "larger than 1 MiB")
    writer.put("", 0, "lacks the key")
    writer.put("\n" * 5000, 0, "lacks the key")
    writer.put(GOOD + "[[rule]]\naction = \"bypass\"\n" * 4096, 20, "expected at most 4096")


def unknown(writer):
    for number, key in KEYED:
        writer.line(number, LINES[number - 1].replace(key, key + "x", 1), "unknown key")
        writer.line(number, LINES[number - 1].replace(key, key.upper(), 1), "unknown key")
    for number, line in enumerate(LINES, 1):
        if not line.startswith("["):
            continue
        writer.line(number, line.replace("r", "rr", 1) if "r" in line else line.replace("e", "ee", 1), "")


def signed(writer, latchkey, dice):
    def keys(name):
        folder = writer.folder
        subprocess.run([latchkey, "keygen", "-W", "-s", f"{folder}/{name}.key", "-p", f"{folder}/{name}.pub"],
                       check=True, stdout=subprocess.DEVNULL)

    def sign(text, name="signer"):
        path = os.path.join(writer.folder, "unsigned")
        with open(path, "w") as file:
            file.write(text)
        subprocess.run([latchkey, "sign", "--key", f"{writer.folder}/{name}.key", path], check=True,
                       stdout=subprocess.DEVNULL)
        with open(path + ".minisig", "rb") as file:
            return file.read()

    keys("signer")
    keys("stranger")
    signature = sign(GOOD)
    head = signature.index(b"\n") + 1  # the untrusted comment is nobody's word
    for _ in range(170):
        text = bytearray(GOOD.encode())
        bit = dice.randrange(len(text) * 8)
        text[bit // 8] ^= 1 << bit % 8
        # The launcher's own parser may see it first; either way it is refused.
        writer.put(bytes(text), -1, "", signature)
    for _ in range(100):
        changed = bytearray(signature)
        bit = dice.randrange(head * 8, len(changed) * 8)
        changed[bit // 8] ^= 1 << bit % 8
        writer.put(GOOD, 0, "(bad-signature)", bytes(changed))
    for cut in range(0, len(signature) - 1, 12):
        writer.put(GOOD, 0, "(bad-signature)", signature[:cut])
    for number in range(20):
        text = GOOD.replace("hostile", f"hostile-{number}")
        writer.put(text, 0, "(bad-signature)", sign(text, "stranger"))
        writer.put(text, 0, "(bad-signature)", signature)
    for number in range(15):
        text = GOOD.replace("2099-12-31", f"20{number:02}-01-01")
        writer.put(text, 0, "(policy-expired)", sign(text))
        text = GOOD.replace("= 100", f"= {number + 1}")
        writer.put(text, 0, "(policy-rollback)", sign(text))
    os.remove(os.path.join(writer.folder, "unsigned"))
    os.remove(os.path.join(writer.folder, "unsigned.minisig"))
    with open(os.path.join(writer.folder, "newest.toml"), "w") as file:
        file.write(GOOD)
    with open(os.path.join(writer.folder, "newest.toml.minisig"), "wb") as file:
        file.write(signature)


def main():
    folder, latchkey = sys.argv[1:]
    dice = random.Random(5660)
    writer = Writer(folder)
    truncated(writer)
    duplicated(writer)
    wrong_types(writer)
    octets(writer, dice)
    absurd(writer)
    unknown(writer)
    signed(writer, latchkey, dice)
    writer.expected.close()
    print(writer.count)


main()
