"""Tests that run the probe under the shim, with a broker that answers what it is told to."""

load("//tools/bazel:defs.bzl", "lk_cc_test")

def probe_test(name, deps = [], marks = False, data = [], env = {}):
    """A test in NAME.cc; `marks`: it sets them, which needs rights over the network namespace."""
    lk_cc_test(
        name = name,
        srcs = [name + ".cc"],
        data = data + [
            ":probe",
            "//shim:liblatchkey.so",
        ],
        env = dict(
            env,
            PROBE = "$(rootpath :probe)",
            SHIM = "$(rootpath //shim:liblatchkey.so)",
        ),
        # The probe's loader would have to load the sanitizer's run time before the shim.
        tags = ["no-sanitize"] + (["local", "no-sandbox"] if marks else []),
        deps = deps + [
            ":fake_broker",
            ":harness",
            "//shim/wire:codec",
        ],
    )
