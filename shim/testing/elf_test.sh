#!/bin/sh
# elf_test SHIM LIST SOURCE...: what the loader sees of the shim: its exports are the list in
# exports.lds and all hooks of the sources, and nothing else, it needs libc alone, calls no function
# that it stands in front of, and runs on glibc 2.34.
set -eu
shim=$1
exports=$2
shift 2
failed=0

fail() {
  echo "elf_test: $1"
  failed=1
}

names() { sort -u | tr '\n' ' '; }

listed=$(sed -n '/global:/,/local:/p' "$exports" | tr -d ' \n' | sed 's/global://; s/local:.*//' |
  tr ';' '\n' | grep . | names)
exported=$(nm -D --defined-only "$shim" | awk '{print $3}' | names)
[ -n "$listed" ] || fail "no list in $exports"
[ "$listed" = "$exported" ] || fail "exported: $exported; listed: $listed"

hooks=$(sed -n '/#define/d; s/.*LATCHKEY_HOOK(\([a-z0-9_]*\)).*/\1/p' "$@" | names)
[ "$listed" = "$hooks" ] || fail "hooks: $hooks; listed: $listed"
called=$(sed -n 's/^X(\([a-z0-9_]*\),.*/\1/p' "$@" | names)
[ -n "$called" ] || fail "no table of real functions"
for name in $called; do
  case " $listed" in *" $name "*) ;; *) fail "lists not $name, which it looks up" ;; esac
done

undefined=$(nm -D --undefined-only "$shim" | awk '{print $NF}' | sed 's/@.*//' | names)
for name in $listed; do
  case " $undefined" in *" $name "*) fail "calls $name, which it interposes" ;; esac
done

needed=$(readelf -d "$shim" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^ld-linux' | names)
[ "$needed" = "libc.so.6 " ] || fail "needs $needed"

newest=$(nm -D --undefined-only "$shim" | sed -n 's/.*@GLIBC_//p' | sort -V | tail -1)
[ "$(printf '%s\n2.34\n' "$newest" | sort -V | tail -1)" = 2.34 ] || fail "needs glibc $newest"

# No path of it allocates: it asks nobody for memory. (setenv and realpath may, of the C library; they are for its start and for
# what a child is to find in its environment.)
for name in malloc calloc realloc reallocarray free aligned_alloc memalign posix_memalign valloc strdup strndup asprintf vasprintf \
  getline fopen fdopen opendir brk sbrk mmap mmap64; do
  case " $undefined" in *" $name "*) fail "allocates: $name" ;; esac
done

# The compiler's own entry, and nothing of ours: what is called after the last destructor works.
ends=$(readelf -d "$shim" | sed -n 's/.*(FINI_ARRAYSZ) *\([0-9]*\).*/\1/p')
[ "${ends:-0}" -le 8 ] || fail "has a destructor"

said=$(LD_PRELOAD=$(realpath "$shim") LATCHKEY_SOCKET=/nonexistent LATCHKEY_TOKEN=none \
  /bin/true 2>&1) || fail "harms a program without sockets"
[ -z "$said" ] || fail "a program without sockets says: $said"
exit $failed
