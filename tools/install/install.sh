#!/usr/bin/env bash
# Installs Latchkey under a prefix and writes down, in lib/latchkey/manifest, what it put there.
#
# Everything stays under DESTDIR and the prefix: policies and the PAD (/etc/latchkey) are the
# administrator's, and nothing is enabled or started.
set -eu -o pipefail
program=install
runfiles=${RUNFILES_DIR:-$0.runfiles}/latchkey
[ -d "$runfiles" ] || runfiles=$PWD
# shellcheck source=tools/install/common.sh
. "$runfiles/tools/install/common.sh"
parse_options "$@"

lines=() # the manifest: "d PATH" and "f PATH", relative to the prefix, in the order they were made

# Makes the folder PATH under the prefix and writes down those that were not there before.
make_folder() {
  local path=$1 missing=()
  while [ -n "$path" ] && [ "$path" != . ] && [ ! -d "$root/$path" ]; do
    missing=("$path" "${missing[@]}")
    path=$(dirname "$path")
  done
  local folder
  for folder in "${missing[@]}"; do
    install -d -m 755 "$root/$folder"
    lines+=("d $folder")
  done
}

# Puts the file SOURCE at PATH with MODE. Beside it first, then moved: programs that run keep the
# file they started with.
put() {
  local source=$1 path=$2 mode=$3
  make_folder "$(dirname "$path")"
  install -m "$mode" "$source" "$root/$path.new"
  mv -f "$root/$path.new" "$root/$path"
  lines+=("f $path")
}

put_unit() {
  local unit=$1 rewritten
  rewritten=$(mktemp)
  sed "s|@PREFIX@|$prefix|g" "$runfiles/tools/install/$unit" >"$rewritten"
  put "$rewritten" "lib/systemd/system/$unit" 644
  rm -f "$rewritten"
}

# Folders above the prefix are nobody's to take away again; those from the prefix on are ours when
# we make them.
if [ ! -d "$root" ]; then
  install -d -m 755 "$root"
  lines+=("d .")
fi
# What an earlier install made is still ours.
if [ -f "$manifest" ]; then
  while read -r kind path; do
    [ "$kind" = d ] && lines+=("d $path")
  done <"$manifest"
fi

put "$runfiles/tools/latchkey/latchkey" bin/latchkey 755
put "$runfiles/tools/latchkeyd/latchkeyd" sbin/latchkeyd 755
put "$runfiles/shim/liblatchkey.so" lib/latchkey/liblatchkey.so 755
put "$runfiles/shim/latchkey.h" include/latchkey.h 644
put "$runfiles/docs/latchkey.1" share/man/man1/latchkey.1 644
put "$runfiles/docs/latchkey-policy.5" share/man/man5/latchkey-policy.5 644
put "$runfiles/docs/latchkey.7" share/man/man7/latchkey.7 644
put "$runfiles/docs/latchkeyd.8" share/man/man8/latchkeyd.8 644
put_unit latchkeyd.service
put_unit latchkeyd.socket

lines+=("f lib/latchkey/manifest")
printf '%s\n' "${lines[@]}" >"$manifest.new"
chmod 644 "$manifest.new"
mv -f "$manifest.new" "$manifest"
echo "installed under ${root:-/}: bin/latchkey, sbin/latchkeyd, lib/latchkey, lib/systemd/system, include/latchkey.h, share/man"
