# shellcheck shell=bash
# Manually keyed security associations, and the PAD entries that say whose they are.

_lab_random() { # _lab_random BYTES: sets REPLY to fresh random octets, in hex
  # One process for many: starting one is dear in user-mode-linux.
  if [ ${#_lab_pool} -lt $(($1 * 2)) ]; then
    _lab_pool=$(od -An -v -w2048 -N2048 -tx1 /dev/urandom)
    _lab_pool=${_lab_pool// /}
  fi
  REPLY=${_lab_pool:0:$(($1 * 2))}
  _lab_pool=${_lab_pool:$(($1 * 2))}
}
_lab_pool=

_lab_suite() { # _lab_suite NAME: sets REPLY to the algorithm part of `ip xfrm state add`, with a new key
  local enc='' auth='' bits=${1#*:} icv=${1#aes-gcm-}
  bits=${bits%%/*}
  case $1 in
    aes-gcm-16:128 | aes-gcm-16:192 | aes-gcm-16:256 | aes-gcm-12:128 | aes-gcm-12:256 | aes-gcm-8:128 | aes-gcm-8:256)
      _lab_random $((bits / 8 + 4))
      REPLY="aead rfc4106(gcm(aes)) 0x$REPLY $((${icv%:*} * 8))"
      return 0
      ;;
    chacha20-poly1305)
      _lab_random 36
      REPLY="aead rfc7539esp(chacha20,poly1305) 0x$REPLY 128"
      return 0
      ;;
  esac
  case ${1%%/*} in
    aes-cbc:128 | aes-cbc:192 | aes-cbc:256) _lab_random $((bits / 8)) && enc="enc cbc(aes) 0x$REPLY" ;;
    3des-cbc) _lab_random 24 && enc="enc cbc(des3_ede) 0x$REPLY" ;;
    null) enc='enc ecb(cipher_null) ""' ;;
  esac
  case ${1#*/} in
    hmac-sha2-256) _lab_random 32 && auth="auth-trunc hmac(sha256) 0x$REPLY 128" ;;
    hmac-sha2-384) _lab_random 48 && auth="auth-trunc hmac(sha384) 0x$REPLY 192" ;;
    hmac-sha2-512) _lab_random 64 && auth="auth-trunc hmac(sha512) 0x$REPLY 256" ;;
    hmac-sha1) _lab_random 20 && auth="auth-trunc hmac(sha1) 0x$REPLY 96" ;;
  esac
  if [ -z "$enc" ] || [ -z "$auth" ]; then
    echo "lab: unknown suite: $1" >&2
    return 1
  fi
  REPLY="$enc $auth"
}

_lab_addresses() { # _lab_addresses HOST: sets REPLY to "v4 v6"
  case $1 in
    a) REPLY='10.9.0.1 fd00::1' ;;
    b) REPLY='10.9.0.2 fd00::2' ;;
    c) REPLY='10.9.0.3 fd00::3' ;;
    *) return 1 ;;
  esac
}

_lab_pad() { # _lab_pad HOST PEER REQID PEER-ID LOCAL-ID: appends to the host's pad.toml, once
  local host=$1 remote id=$4 local_id=$5 file entry have=''
  _lab_addresses "$2"
  remote="\"${REPLY% *}\", \"${REPLY#* }\""
  id=${id//\\/\\\\}
  local_id=${local_id//\\/\\\\}
  printf -v entry '[[sa]]\nreqid = %s\nremote = [%s]\nid = "%s"\nlocal_id = "%s"\nauth = "manual"\n' \
    "$3" "$remote" "${id//\"/\\\"}" "${local_id//\"/\\\"}"
  _lab_pid "$host"
  file=/proc/$REPLY/root/etc/latchkey/pad.toml
  [ ! -e "$file" ] || read -rd '' have <"$file"
  # One write of a whole entry: nobody reads half of it.
  [[ $have$'\n' == *"$entry"* ]] || printf '%s%s' "${have:+$'\n'}" "$entry" >>"$file"
}

# manual_sa HOST HOST REQID [IDA IDB [SUITE]]: a pair of transport mode SAs for v4 and one for v6,
# on both hosts; the PAD entries come first. The SPIs are added to $LAB/sa.REQID (src dst spi).
manual_sa() {
  local x=$1 y=$2 reqid=$3 idx=${4:-$1} idy=${5:-$2} suite=${6:-aes-gcm-16:256}
  local ax ay i src dst spi batch=''
  { [ "$x" != "$y" ] && _lab_addresses "$x" && ax=$REPLY && _lab_addresses "$y" && ay=$REPLY; } ||
    fail "manual_sa: needs two hosts, not \"$x\" and \"$y\""
  _lab_suite "$suite" || fail "manual_sa: unknown suite $suite"
  _lab_pad "$x" "$y" "$reqid" "$idy" "$idx" || fail "manual_sa: cannot write the PAD of $x"
  _lab_pad "$y" "$x" "$reqid" "$idx" "$idy" || fail "manual_sa: cannot write the PAD of $y"
  for i in "${ax% *} ${ay% *}" "${ay% *} ${ax% *}" "${ax#* } ${ay#* }" "${ay#* } ${ax#* }"; do
    src=${i% *} dst=${i#* }
    _lab_random 4
    [ "${REPLY:0:2}" != 00 ] || REPLY=5a${REPLY:2} # 1 to 255 are reserved
    spi=0x$REPLY
    _lab_suite "$suite"
    batch+="xfrm state add src $src dst $dst proto esp spi $spi reqid $reqid mode transport"
    batch+=" replay-window 32 $REPLY"$'\n'
    echo "$src $dst $spi" >>"$LAB/sa.$reqid"
  done
  ip -n "$x" -batch - <<<"$batch" && ip -n "$y" -batch - <<<"$batch" ||
    fail "manual_sa: the kernel refused the SAs of $x and $y, reqid $reqid, suite $suite"
}

# sa_delete HOST HOST REQID: removes what manual_sa installed between the two, on both.
sa_delete() {
  local x=$1 y=$2 reqid=$3 ax ay src dst spi batch='' left='' count=0
  { _lab_addresses "$x" && ax=" $REPLY " && _lab_addresses "$y" && ay=" $REPLY "; } ||
    fail "sa_delete: needs two hosts, not \"$x\" and \"$y\""
  [ -e "$LAB/sa.$reqid" ] || fail "sa_delete: no SAs with reqid $reqid"
  while read -r src dst spi; do
    if [[ $ax == *" $src "* && $ay == *" $dst "* || $ay == *" $src "* && $ax == *" $dst "* ]]; then
      batch+="xfrm state delete src $src dst $dst proto esp spi $spi"$'\n'
      count=$((count + 1))
    else
      left+="$src $dst $spi"$'\n'
    fi
  done <"$LAB/sa.$reqid"
  [ $count -gt 0 ] || fail "sa_delete: no SAs between $x and $y with reqid $reqid"
  printf %s "$left" >"$LAB/sa.$reqid"
  # Both ends are done even when one of them has lost an SA already; that is reported.
  ip -n "$x" -force -batch - <<<"$batch"
  local status=$?
  ip -n "$y" -force -batch - <<<"$batch" && [ $status = 0 ]
}
