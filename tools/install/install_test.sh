#!/usr/bin/env bash
# Installs into a folder of its own, runs what is there, uninstalls, and looks for what is left.
set -eu -o pipefail
runfiles=${RUNFILES_DIR:-${TEST_SRCDIR:-$0.runfiles}}
export RUNFILES_DIR=$runfiles
cd "$runfiles/latchkey"
base=$(mktemp -d "${TEST_TMPDIR:-/tmp}/install.XXXXXX")
trap 'rm -rf "$base"' EXIT

fail() {
  echo "install_test: $*" >&2
  exit 1
}
install() { tools/install/install.sh "$@"; }
uninstall() { tools/install/uninstall.sh "$@"; }
listing() { (cd "$1" && find . -mindepth 1 | sort | tr '\n' ' '); }

# A folder that was there is empty again, and nothing lies outside it.
mkdir "$base/there"
install --prefix="$base/there" >/dev/null
got=$(cd "$base/there" && find . -type f | sort | tr '\n' ' ')
want="./bin/latchkey ./include/latchkey.h ./lib/latchkey/liblatchkey.so ./lib/latchkey/manifest \
./lib/systemd/system/latchkeyd.service ./lib/systemd/system/latchkeyd.socket ./sbin/latchkeyd \
./share/man/man1/latchkey.1 ./share/man/man5/latchkey-policy.5 ./share/man/man7/latchkey.7 \
./share/man/man8/latchkeyd.8 "
[ "$got" = "$want" ] || fail "installed: $got"
"$base/there/bin/latchkey" --version | grep -q '^latchkey [0-9]' || fail "latchkey does not run"
"$base/there/sbin/latchkeyd" --version | grep -q '^latchkeyd [0-9]' || fail "latchkeyd does not run"
grep -q "^ExecStart=$base/there/sbin/latchkeyd" \
  "$base/there/lib/systemd/system/latchkeyd.service" ||
  fail "the unit does not name the installed broker"
grep -r -q '@PREFIX@' "$base/there/lib/systemd" && fail "a unit has a place left open"
# The launcher finds the installed shim: it gets as far as the broker that is not there.
said=$("$base/there/bin/latchkey" run --socket /nowhere/none true 2>&1) &&
  fail "ran without a broker"
case $said in "latchkey: no broker at "*) ;; *) fail "instead of missing the broker: $said" ;; esac
# Installing again and uninstalling once leaves nothing either.
install --prefix="$base/there" >/dev/null
uninstall --prefix="$base/there" >/dev/null
[ -z "$(listing "$base/there")" ] || fail "left behind: $(listing "$base/there")"

# What is not ours stays.
install --prefix="$base/there" >/dev/null
echo mine >"$base/there/bin/other"
uninstall --prefix="$base/there" >/dev/null
[ "$(listing "$base/there")" = "./bin ./bin/other " ] || fail "kept: $(listing "$base/there")"

# A prefix we make goes again; relative names are the caller's; DESTDIR is not part of the paths.
BUILD_WORKING_DIRECTORY=$base install --prefix new/one >/dev/null
[ -x "$base/new/one/bin/latchkey" ] || fail "the relative prefix went elsewhere"
BUILD_WORKING_DIRECTORY=$base uninstall --prefix new/one >/dev/null
[ ! -e "$base/new/one" ] || fail "a prefix we made was left"
DESTDIR=$base/stage install --prefix=/usr/local >/dev/null
grep -q '^ExecStart=/usr/local/sbin/latchkeyd' \
  "$base/stage/usr/local/lib/systemd/system/latchkeyd.service" || fail "DESTDIR is in the unit"
DESTDIR=$base/stage uninstall --prefix=/usr/local >/dev/null
[ ! -e "$base/stage/usr/local" ] || fail "DESTDIR: left behind"

# Wrong calls change nothing.
for words in "" "--prefix" "--prefix= x" "--bogus"; do
  # shellcheck disable=SC2086
  install $words 2>/dev/null && fail "accepted: '$words'"
done
install --prefix="$base/a b" 2>/dev/null && fail "accepted a prefix with a blank"
uninstall --prefix="$base/none" 2>/dev/null && fail "uninstalled from nowhere"
mkdir -p "$base/bad/lib/latchkey"
echo keep >"$base/keep"
printf 'f ../keep\n' >"$base/bad/lib/latchkey/manifest"
uninstall --prefix="$base/bad" 2>/dev/null && fail "followed a manifest to the outside"
[ -e "$base/keep" ] || fail "removed a file outside the prefix"
echo "install_test: passed"
