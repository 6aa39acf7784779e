# shellcheck shell=bash
# The functions of a lab script. bash reads this first (BASH_ENV), in the script and in every
# bash that it starts; `. "$LAB_LIB"` does the same by hand.
if [ -n "${LATCHKEY_LAB_BASH_ENV:-}" ] && [ -r "$LATCHKEY_LAB_BASH_ENV" ]; then
  # shellcheck disable=SC1090
  . "$LATCHKEY_LAB_BASH_ENV"
fi

_lab_home=/opt/latchkey-lab
read -r _lab_pid_a <$_lab_home/pid/a
read -r _lab_pid_b <$_lab_home/pid/b
read -r _lab_pid_c <$_lab_home/pid/c
read -r _lab_cgroup <$_lab_home/cgroup
# shellcheck source=/dev/null
. $_lab_home/guest/sa.sh
# shellcheck source=/dev/null
. $_lab_home/guest/capture.sh
# shellcheck source=/dev/null
. $_lab_home/guest/ike.sh

# fail MESSAGE...: says why and ends the script (or the subshell that it runs in) with 1.
fail() {
  echo "FAIL: $*"
  exit 1
}

# check DESCRIPTION CMD...: the command must succeed.
check() {
  local what=$1 status
  shift
  "$@"
  status=$?
  [ $status = 0 ] || fail "$what (status $status: $*)"
  echo "good: $what"
}

# expect_eq WHAT GOT WANT
expect_eq() {
  [ "$2" = "$3" ] || fail "$1: got \"$2\", want \"$3\""
  echo "good: $1"
}

# retry SECONDS CMD...: repeats the command until it succeeds; 1 when the time is over.
retry() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

_lab_pid() { # _lab_pid HOST: sets REPLY to the process that holds the host's namespaces
  case ${1:-} in
    a) REPLY=$_lab_pid_a ;;
    b) REPLY=$_lab_pid_b ;;
    c) REPLY=$_lab_pid_c ;;
    *)
      echo "lab: no such host: ${1:-}" >&2
      return 1
      ;;
  esac
}

_lab_enter() { # _lab_enter HOST CMD...: replaces this (sub)shell by the command on the host
  local host=$1
  shift
  _lab_pid "$host" || exit 125
  [ $# -gt 0 ] || { echo "lab: no command for host $host" >&2; exit 125; }
  [ ! -d "$_lab_cgroup/$host" ] || echo "$BASHPID" >"$_lab_cgroup/$host/cgroup.procs"
  exec nsenter -t "$REPLY" -m -n -u -C --wdns="$PWD" -- "$@"
}

# on HOST CMD...: runs a command on a host; its standard input and exit status are the command's.
on() {
  (_lab_enter "$@")
}

# bg HOST NAME CMD...: starts a command on a host; $LAB/NAME.log, $LAB/NAME.pid.
bg() {
  local host=$1 name=$2
  shift 2
  _lab_pid "$host" || return 125
  # Before it begins: what an earlier one of that name said is not its word.
  rm -f "$LAB/$name.pid" "$LAB/$name.log"
  (_lab_enter "$host" "$@") </dev/null >"$LAB/$name.log" 2>&1 &
  echo $! >"$LAB/$name.pid"
}

_lab_listening() { # _lab_listening KEEPER-PID HEX-PORT
  local _ addr state
  while read -r _ addr _ state _; do
    [ "$state" = 0A ] && [ "${addr##*:}" = "$2" ] && return 0
  done < <(cat "/proc/$1/net/tcp" "/proc/$1/net/tcp6" 2>/dev/null)
  return 1
}

# wait_listen HOST PORT: until some TCP socket of the host listens on the port.
wait_listen() {
  local hex end=$((SECONDS + 20))
  _lab_pid "$1" || fail "wait_listen: no such host: $1"
  printf -v hex %04X "$2"
  until _lab_listening "$REPLY" "$hex"; do
    [ $SECONDS -le $end ] || fail "wait_listen: nothing listens on $1 port $2 after 20 s"
    sleep 0.1
  done
}
