#!/usr/bin/python3
"""The unit's limits against what the broker does: what it writes under /proc/sys and /sys, which
ProtectKernelTunables makes read-only, must be in ReadWritePaths, and nothing else need be."""

import os
import re
import unittest

# What the broker names there and only reads or looks at.
READ_ONLY = {
    "/proc/sys/kernel/modprobe",  # which program loads modules
    "/proc/sys/net",  # which devices leave XFRM out
    "/sys/fs/bpf",  # whether it is mounted
}


def sources():
    for folder, _, names in os.walk("tools/latchkeyd"):
        for name in names:
            if name.endswith((".cc", ".h")) and not name.endswith("_test.cc"):
                yield os.path.join(folder, name)


def named():
    """The paths that the broker's sources name, outside comments."""
    paths = set()
    for source in sources():
        with open(source, encoding="utf-8") as file:
            text = re.sub(r"//.*", "", file.read())
        paths.update(re.findall(r'"((?:/proc/sys|/sys)(?:/[^"\s]*)?)"', text))
    return paths


def unit():
    """The settings of [Service], each with all its words."""
    settings = {}
    with open("tools/install/latchkeyd.service", encoding="utf-8") as file:
        for line in file:
            match = re.match(r"(\w+)=(.*)", line)
            if match:
                settings.setdefault(match[1], []).extend(match[2].split())
    return settings


class Unit(unittest.TestCase):
    def test_the_sources_are_there(self):
        self.assertGreater(len(list(sources())), 100)
        self.assertLessEqual(READ_ONLY, named())

    def test_what_the_broker_writes_may_be_written(self):
        self.assertEqual(unit()["ProtectKernelTunables"], ["yes"])
        written = {"-" + path for path in named() - READ_ONLY}
        self.assertEqual(set(unit()["ReadWritePaths"]), written)


if __name__ == "__main__":
    unittest.main()
