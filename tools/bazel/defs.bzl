"""Latchkey's flags, and the rules that apply them to every target."""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

COPTS = [
    "-std=c++23",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wnon-virtual-dtor",
    "-Wcast-qual",
    "-Wformat=2",
    "-fno-common",
    "-fstack-protector-strong",
]

# What runs inside somebody else's program: nothing of the C++ run-time library, no lock hidden in
# a static, thread-locals that never allocate, and no symbol out unless it is listed.
SHIM_COPTS = COPTS + [
    "-O2",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fPIC",
    "-U_FORTIFY_SOURCE",
]

def lk_cc_library(name, copts = [], **kwargs):
    cc_library(name = name, copts = COPTS + copts, **kwargs)

def lk_cc_binary(name, copts = [], **kwargs):
    cc_binary(name = name, copts = COPTS + copts, **kwargs)

def lk_cc_test(name, deps = [], copts = [], size = "small", **kwargs):
    """A unit test on Catch2; its main() is compiled once, in //tests:catch_main."""
    cc_test(
        name = name,
        copts = COPTS + copts,
        # Hidden symbols cannot be reached across shared objects.
        linkstatic = True,
        size = size,
        deps = deps + ["//tests:catch_main"],
        **kwargs
    )

def shim_cc_library(name, copts = [], **kwargs):
    cc_library(name = name, copts = SHIM_COPTS + copts, linkstatic = True, **kwargs)

def lk_cc_fuzz(name, count, deps = [], **kwargs):
    """A libFuzzer target, NAME.cc, which builds with --config=fuzz alone, and NAME_test, which drives
    the same with `count` inputs made of corpus/NAME."""
    cc_test(
        name = name + "_test",
        size = "medium",
        srcs = [
            name + ".cc",
            "drive.cc",
        ],
        args = [
            "tests/fuzz/corpus/" + name,
            str(count),
        ],
        copts = COPTS,
        data = native.glob(["corpus/" + name + "/*"]),
        linkstatic = True,
        deps = deps,
    )
    cc_binary(
        name = name,
        srcs = [name + ".cc"],
        copts = COPTS,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = deps,
        **kwargs
    )
