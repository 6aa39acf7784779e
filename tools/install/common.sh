# shellcheck shell=bash
# What install.sh and uninstall.sh share: options, and where the manifest lies.
#
# The caller has set `program`, the name in messages.
# Sets `prefix` (absolute, as the installed files will know it), `root` (DESTDIR and prefix, where
# they are written) and `manifest`.
# shellcheck disable=SC2034,SC2154

die() {
  echo "$program: $*" >&2
  exit 1
}

usage() {
  echo "Usage: bazel run //:$program -- --prefix=DIR    (DESTDIR is honoured)" >&2
  exit 2
}

parse_options() {
  local argument
  prefix=
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
      --prefix=*) prefix=${argument#--prefix=} ;;
      --prefix)
        [ $# -gt 0 ] || usage
        prefix=$1
        shift
        ;;
      *) usage ;;
    esac
  done
  [ -n "$prefix" ] || usage
  # `bazel run` starts us in its own folder; names are relative to the caller's.
  local here=${BUILD_WORKING_DIRECTORY:-$PWD}
  case $prefix in /*) ;; *) prefix=$here/$prefix ;; esac
  local destination=${DESTDIR:-}
  case $destination in '' | /*) ;; *) destination=$here/$destination ;; esac
  prefix=$(realpath -m -s -- "$prefix")
  [ "$prefix" != / ] || prefix=
  # LD_PRELOAD cannot name a path with blanks or colons, and units give "%" and "$" a meaning.
  case $prefix in
    *[!A-Za-z0-9/._+,=@-]*) die "$prefix: only letters, digits and / . _ + , = @ - will do" ;;
  esac
  root=${destination%/}$prefix
  manifest=$root/lib/latchkey/manifest
}
