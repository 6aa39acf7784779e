#!/usr/bin/env bash
# Takes away what install.sh put under a prefix: the files its manifest lists, and the folders it
# made, where nothing else has come to lie in them. A folder that is not empty stays, and is named.
set -eu -o pipefail
program=uninstall
runfiles=${RUNFILES_DIR:-$0.runfiles}/latchkey
[ -d "$runfiles" ] || runfiles=$PWD
# shellcheck source=tools/install/common.sh
. "$runfiles/tools/install/common.sh"
parse_options "$@"

[ -f "$manifest" ] || die "${root:-/}: nothing installed here (no $manifest)"
mapfile -t lines <"$manifest"
# All of it is looked at before anything is taken away: the manifest is a file like others.
for line in "${lines[@]}"; do
  case $line in
    [fd]\ /* | [fd]\ .. | [fd]\ ../* | *"/../"* | */..) die "$manifest: '$line' leads outside" ;;
    [fd]\ ?*) ;;
    *) die "$manifest: '$line' is no entry of a manifest" ;;
  esac
done
for line in "${lines[@]}"; do
  case $line in f\ *) rm -f -- "$root/${line#f }" ;; esac
done
for ((i = ${#lines[@]} - 1; i >= 0; --i)); do
  case ${lines[i]} in d\ *) ;; *) continue ;; esac
  folder=$root/${lines[i]#d }
  [ "${lines[i]}" != "d ." ] || folder=$root
  [ -d "$folder" ] || continue
  if [ -z "$(ls -A "$folder")" ]; then
    rmdir "$folder"
  else
    echo "uninstall: left in place, not empty: $folder"
  fi
done
echo "uninstalled from ${root:-/}"
