#!/usr/bin/python3
"""generate.py FOLDER LATCHKEY: a thousand policies that must be refused, the same ones each time.

Writes FOLDER/NNNN.toml (and, for those that are signed, NNNN.toml.minisig), the keys they need, and
FOLDER/expected: one line each, NAME, LINE and WORDS, split by tabs. LINE is where the mistake is, 0
for what is wrong with no line of the file; WORDS is a part of the message that no other mistake has,
worked out from the language and never from an answer.
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
INTEGER = {"latchkey": "1", "serial": "an integer from 1 to 9223372036854775807",
           "min_key_bits": "an integer from 0 to 512", "reqid": "an integer from 1 to 4294967295"}
# What each element of a list must be.
LISTS = {"program": "a string", "users": "a user name or a number", "encryption": "one of aes-gcm-16",
         "integrity": "one of hmac-sha1", "id": "a string", "auth": '"pubkey", "psk"',
         "remote": "an address or a prefix", "remote_port": "a port from 1 to 65535",
         "local": "an address or a prefix"}
WORDS = {"protocol", "mode", "replay", "esn", "sharing", "pin", "direction", "action", "on_break"}
SUITES = {"encryption", "integrity", "auth"}


def key_of(line):
    return line.split("=")[0].strip() if "=" in line else ""


KEYED = [(number, key_of(line)) for number, line in enumerate(LINES, 1) if key_of(line)]


class Writer:
    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.expected = open(os.path.join(folder, "expected"), "w", encoding="utf-8")

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
    end = "encountered end-of-file"
    tails = {"": end, " ": end, "\t": end, " #": "expected value, saw '#'", ' "': "parsing string: " + end,
             " [": "parsing array: " + end}
    for number, key in KEYED:
        cut = "\n".join(LINES[:number - 1] + [LINES[number - 1].split("=")[0] + "="])
        for tail, words in tails.items():
            writer.put(cut + tail, number, words)


def duplicated(writer):
    for number, key in KEYED:
        lines = list(LINES)
        lines.insert(number, lines[number - 1])
        kind = "array" if key in LISTS else "integer" if key in INTEGER else "date" if key == "not_after" else "string"
        writer.put("\n".join(lines) + "\n", number + 1, f"cannot redefine existing {kind} '{key}'")


def wrong_types(writer):
    shown = {"true": "true", "1.5": "1.5", "{}": "a table", "2020-01-01T00:00:00Z": "2020-01-01T00:00:00Z",
             "[[]]": "a list", "nan": "nan", '"1"': '"1"', "7": "7", '["text"]': "a list"}

    def put(number, key, value, expected):
        writer.line(number, f"{key} = {value}", f"{key} is {shown[value]}: expected {expected}")

    for number, key in KEYED:
        for value in ["true", "1.5", "{}", "2020-01-01T00:00:00Z", "[[]]", "nan"]:
            if key in LISTS and value == "[[]]":
                writer.line(number, f"{key} = {value}", f"{key} holds a list: expected {LISTS[key]}")
            elif key in LISTS:
                put(number, key, value, "a list")
            else:
                put(number, key, value, INTEGER.get(key, "a date" if key == "not_after" else "a string"))
        if key in LISTS:
            writer.line(number, f'{key} = "text"', f'{key} is "text": expected a list')
            writer.line(number, f"{key} = []", f"{key} has 0 elements: expected 1 to 64")
        elif key in INTEGER:
            put(number, key, '"1"', INTEGER[key])
        elif key != "not_after":
            put(number, key, "7", "a string")
            put(number, key, '["text"]', "a string")


# What is said of octets beyond ASCII that are no UTF-8, inside of quotes and elsewhere.
QUOTED, BARE = "invalid utf-8", "a character beyond ASCII: expected one only in quotes"


def in_quotes(line, place):
    return line[:place].count('"') % 2 == 1


def octets(writer, dice):
    # What is no UTF-8, or a control character, anywhere at all.
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1", b"\x00",
                b"\x0b", b"\x7f"):
        for _ in range(18):
            number = dice.randrange(1, len(LINES) + 1)
            line = LINES[number - 1]
            raw = [each.encode() for each in LINES]
            place = dice.randrange(len(line) + 1)
            raw[number - 1] = raw[number - 1][:place] + bad + raw[number - 1][place:]
            words = f"control character \\x{bad[0]:02x}: expected none"
            if bad[0] >= 0x80:
                words = QUOTED if in_quotes(line, place) else BARE
            writer.put(b"\n".join(raw) + b"\n", number, words)


def absurd(writer):
    def change(key, value, words):
        for number, each in KEYED:
            if each == key:
                writer.line(number, f"{key} = {value}", words)
                return

    def holds(key, element, expected):
        change(key, f"[{element}]", f"{key} holds {element}: expected {expected}")

    for key in ("serial", "reqid"):
        for value in ("0", "-1"):
            change(key, value, f"{key} is {value}: expected {INTEGER[key]}")
        for value in ("9223372036854775808", "0x1FFFFFFFFFFFFFFFFF"):
            change(key, value, f"'{value}' is not representable in 64 bits")
        change(key, "1e400", "'1e400' could not be interpreted")
    change("reqid", "4294967296", f"reqid is 4294967296: expected {INTEGER['reqid']}")
    change("min_key_bits", "257", "whose keys have at most 256 bits, and min_key_bits is 257: expected at most 256")
    for value in ("-1", "99999999"):
        change("min_key_bits", value, f"min_key_bits is {value}: expected {INTEGER['min_key_bits']}")
    change("latchkey", "2", "latchkey is 2: expected 1")
    for port in ("0", "65536", "-1", '"1-"', '"-1"', '"10-5"', '"1-65536"', '"0-1"', '" 1-2"', '"a"', '""'):
        holds("remote_port", port, LISTS["remote_port"])
    for prefix in ("10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "10.0.0", "::ffff:1.2.3.4/24", "", "any", "10.0.0.0/-1",
                   "10.0.0.0/08x", "fd00::1%eth0", "010.0.0.1", "1.2.3.4.5"):
        holds("remote", f'"{prefix}"', LISTS["remote"])
        holds("local", f'"{prefix}"', LISTS["local"])
    for name, expected in (("", "1 to 255 octets"), ("*@x", '"*" only as the whole leftmost label'),
                           ("a*.example", '"*" only as'), ("a.*.example", '"*" only as'),
                           ("ip:x", 'an IP address after "ip:"'), ("fqdn:", "")):
        holds("id", f'"{name}"', expected)
    change("id", '["' + "x" * 256 + '"]', 'id holds "' + "x" * 80 + "\u2026\": expected 1 to 255 octets")
    for suite in ("", "AES-GCM-16", "aes-gcm-16:256", "des", "hmac-sha1", "aes"):
        holds("encryption", f'"{suite}"', LISTS["encryption"])
    for suite in ("", "md5", "aes-gcm-16", "HMAC-SHA1"):
        holds("integrity", f'"{suite}"', LISTS["integrity"])
    for text in ("", "5", "5 s", "-5s", "11m", "0s", "1h", "5.5s", "99999999999999s"):
        change("acquire_timeout", f'"{text}"', f'acquire_timeout is "{text}": expected a duration of at most 10m')
    for word in ("", "Protect", "allow", "system", "protect ", "none"):
        change("action", f'"{word}"', f'action is "{word}": expected "protect", "protect-or-bypass"')
    for word in ("udplite", "sctp", "6", ""):
        for number, key in KEYED:
            if key == "protocol" and number > 20:
                writer.line(number, f'protocol = "{word}"', f'protocol is "{word}": expected "tcp", "udp"')
    change("application", '"' + "x" * 64 + '"', 'application is "' + "x" * 64 + '": expected 1 to 63 octets')
    change("application", r'"\u0007"', r'application is "\x07": expected 1 to 63 octets')
    holds("program", '"bin/touch"', "an absolute path")
    change("program", '["/' + "x" * 255 + '"]', "\u2026\": expected an absolute path of at most 255 octets")
    for user in ("-1", "4294967295", '"0x0"'):
        holds("users", user, LISTS["users"])
    change("not_after", '"2099-12-31"', 'not_after is "2099-12-31": expected a date')
    change("not_after", "2099-02-30", "expected day between 1 and 28")
    for count in (65, 1000):
        change("remote_port", "[" + ", ".join(str(port) for port in range(1, count + 1)) + "]",
               f"remote_port has {count} elements: expected 1 to 64")
    number = len(LINES) + 1
    brackets = "nested too deep: expected at most 16 open brackets"
    for text, words in (("[" * 500000, brackets), ("x = " + "[" * 17 + "]" * 17, brackets),
                        ("a." * 300 + "b = 1", "key nested too deep: expected at most 16 dots"),
                        ("x = " + "{a=" * 40 + "1" + "}" * 40, brackets),
                        ('x = """' + "y" * 1000, "parsing string: encountered end-of-file")):
        writer.put(GOOD + text + "\n", number, words)
    writer.put(GOOD + "#" * (1 << 20) + "\n", 1, "larger than 1 MiB: expected at most 1048576 octets")
    writer.put("", 1, 'no key "latchkey" in the file: expected latchkey = 1')
    writer.put("\n" * 5000, 1, 'no key "application" in the file: expected its name')
    writer.put(GOOD + "[[rule]]\naction = \"bypass\"\n" * 4096, 20, "4097 rules: expected at most 4096")


def unknown(writer):
    for number, key in KEYED:
        for name in (key + "x", key.upper()):
            writer.line(number, LINES[number - 1].replace(key, name, 1), f'unknown key "{name}" in ')
    for number, line in enumerate(LINES, 1):
        if not line.startswith("["):
            continue
        wrong = line.replace("r", "rr", 1) if "r" in line else line.replace("e", "ee", 1)
        name = wrong.strip("[]").split(".")[0]
        writer.line(number, wrong, f'unknown key "{name}" in the file')


SIGNATURE = (0, "(bad-signature)")  # the text is a policy still: only its signature can tell


def flipped(place, new):
    """What must be said of GOOD with the octet at `place` replaced; None where that is not clear-cut."""
    number = GOOD.count("\n", 0, place) + 1
    line = LINES[number - 1]
    column = place - (GOOD.rindex("\n", 0, place) + 1 if number > 1 else 0)
    quoted = in_quotes(line, column)
    if new >= 0x80:
        return number, QUOTED if quoted else BARE
    char = chr(new)
    if new == 0x7f or new < 0x20 and char not in "\t\n\r":
        return number, f"control character \\x{new:02x}: expected none"
    if column == len(line) or char in "\t\n\r":
        return None
    wrong = line[:column] + char + line[column + 1:]
    key, letter = key_of(line), char.isalnum() and char.isascii()
    if line.startswith("["):
        name = wrong.strip("[]").split(".")[0]
        in_name = line.index(line.strip("[]")) <= column < line.index(line.strip("[]")) + len(name)
        return (number, f'unknown key "{name}" in the file') if in_name and letter else None
    if column < len(key):
        return (number, f'unknown key "{wrong[:len(key)]}" in ') if letter or char in "-_" else None
    if quoted and line[column] != '"' and letter and line[column].isalnum():
        start = wrong.rindex('"', 0, column)
        value = wrong[start:wrong.index('"', column) + 1]
        if key in ("application", "name", "id"):
            return SIGNATURE
        if key in WORDS:
            return number, f"{key} is {value}: expected "
        if key in SUITES:
            return number, f"{key} holds {value}: expected "
        if key in ("protection", "peer"):
            return number, f"{key} is {value}: expected the name of a [{key}.NAME] table"
    if char.isdigit() and line[column].isdigit() and not quoted:
        value = wrong.split("=")[1].strip()
        if key == "latchkey":
            return number, f"latchkey is {value}: expected 1"
        # The year alone, whatever it is, and no number that begins with 0.
        if key == "not_after" and column - line.index("2") < 4:
            return SIGNATURE
        if key in ("serial", "reqid") and not value.startswith("0"):
            return SIGNATURE
    return None


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
    told = 0
    while told < 170:
        text = bytearray(GOOD.encode())
        bit = dice.randrange(len(text) * 8)
        text[bit // 8] ^= 1 << bit % 8
        if expected := flipped(bit // 8, text[bit // 8]):
            told += 1
            writer.put(bytes(text), *expected, signature)
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
