# shellcheck shell=bash
# strongSwan on the hosts, as an ordinary set-up has it: certificates of one CA, a connection with one
# child for each pair of hosts and each family, both of the same name. README.md has the variables.

_ike_plugins='openssl random nonce pem pkcs1 pkcs8 x509 pubkey constraints'

_ike_host() { # _ike_host HOST: sets REPLY to the root of its file system as seen from here
  _lab_pid "$1" || fail "ike: no such host: $1"
  REPLY=/proc/$REPLY/root
}

# ike_cert NAME...: $LAB/ike/NAME.key and .crt, for NAME.lab, by the lab's CA ($LAB/ike/ca.crt), where they are not there yet.
ike_cert() {
  local name dir=$LAB/ike
  if [ ! -e "$dir/ca.crt" ]; then
    mkdir -p "$dir" && echo '[req]
distinguished_name = dn
prompt = no
[dn]
CN = $ENV::NAME
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
subjectAltName = DNS:$ENV::NAME
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid' >"$dir/openssl.cnf"
    _ike_openssl ca 'the CA of the lab' -extensions ca
  fi
  for name; do
    [ -e "$dir/$name.crt" ] || _ike_openssl "$name" "$name.lab" -extensions host -CA "$dir/ca.crt" -CAkey "$dir/ca.key"
  done
}

_ike_openssl() { # _ike_openssl FILE NAME OPTION...: one process for a key and its certificate
  local file=$LAB/ike/$1
  NAME=$2 openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -config "$LAB/ike/openssl.cnf" \
    "${@:3}" -keyout "$file.key" -out "$file.new" 2>"$file.log" && mv "$file.new" "$file.crt" ||
    fail "no certificate for $2: $(cat "$file.log")"
}

_ike_psk() { # _ike_psk: sets REPLY to the secret of every pair
  if [ ! -e "$LAB/ike/psk" ]; then
    mkdir -p "$LAB/ike"
    _lab_random 32
    echo "$REPLY" >"$LAB/ike/psk"
  fi
  read -r REPLY <"$LAB/ike/psk"
}

_ike_connection() { # _ike_connection NAME REQID LOCAL REMOTE LOCAL-ID REMOTE-ID: prints it
  local certs="certs = ${5%.lab}.crt"
  local reqid="reqid = $2"
  [ "$auth" = pubkey ] || certs=''
  [ "${IKE_REQID:-static}" = static ] || reqid=''
  echo "  $1 {
    version = 2
    local_addrs = $3
    remote_addrs = $4
    proposals = aes128gcm16-prfsha256-x25519
    dpd_delay = ${IKE_DPD:-0}s
    rekey_time = ${IKE_REKEY_IKE:-14400}s
    ${IKE_CONN//;/$'\n'}
    local {
      auth = $auth
      id = $5
      $certs
    }
    remote {
      auth = $auth
      id = $6
    }
    children {
      $1 {
        mode = transport
        $reqid
        esp_proposals = ${IKE_ESP:-aes256gcm16-x25519}
        rekey_time = ${IKE_REKEY:-3600}s
        rand_time = 0s
        start_action = ${IKE_START:-none}
        ${IKE_CHILD//;/$'\n'}
      }
    }
  }"
}

_ike_charon() { # _ike_charon HOST: writes its strongswan.conf
  local lines=${IKE_CHARON:-}
  _ike_host "$1"
  # What comes again and again to one that was held up for a while is no flood: cookies would be asked
  # of some of it, and mixed up with answers to the rest.
  echo "charon {
  dos_protection = no
  load = $_ike_plugins kdf kernel-netlink socket-default vici
  retransmit_tries = 2
  retransmit_timeout = 1.0
  retransmit_base = 1.5
  ${lines//;/$'\n'}
  filelog {
    stderr {
      default = 1
      time_format = %T
      time_add_ms = yes
      ike_name = yes
      flush_line = yes
    }
  }
}
swanctl {
  load = $_ike_plugins
}" >"$REPLY/etc/swanctl/strongswan.conf"
}

_ike_config() { # _ike_config HOST: writes what charon and swanctl read there
  local host=$1 id=${IKE_ID:-$1} auth=${IKE_AUTH:-pubkey} root peer pair n mine theirs file
  local IKE_CONN=${IKE_CONN:-} IKE_CHILD=${IKE_CHILD:-} remote
  _ike_host "$host"
  root=$REPLY
  _ike_charon "$host"
  case $auth in
    pubkey)
      for file in "private/$id.key" "x509/$id.crt" x509ca/ca.crt; do
        echo "$(<"$LAB/ike/${file#*/}")" >"$root/etc/swanctl/$file"
      done
      ;;
    psk) _ike_psk ;;
    *) fail "ike: IKE_AUTH is neither pubkey nor psk: $auth" ;;
  esac
  {
    echo 'connections {'
    _lab_addresses "$host" && mine=$REPLY
    for peer in a b c; do
      case $host$peer in
        ab | ba) pair=a-b n=1 ;;
        ac | ca) pair=a-c n=2 ;;
        bc | cb) pair=b-c n=3 ;;
        *) continue ;;
      esac
      _lab_addresses "$peer" && theirs=$REPLY
      remote=${IKE_REMOTE:-$peer.lab}
      _ike_connection $pair $((65536 + n)) "${mine% *}" "${theirs% *}" "$id.lab" "$remote"
      _ike_connection $pair-6 $((65540 + n)) "${mine#* }" "${theirs#* }" "$id.lab" "$remote"
    done
    echo '}'
    [ "$auth" = pubkey ] || printf 'secrets {\n  ike-lab {\n    secret = 0x%s\n  }\n}\n' "$(<"$LAB/ike/psk")"
  } >"$root/etc/swanctl/conf.d/lab.conf" || fail "ike: cannot write the configuration of $host"
}

_ike_runs() { # _ike_runs HOST: charon runs there
  local pid
  [ -e "$LAB/charon-$1.pid" ] && pid=$(<"$LAB/charon-$1.pid") && [ -d "/proc/$pid" ]
}

_ike_swanctl() { # _ike_swanctl HOST ARG...: what it says is added to $LAB/swanctl-HOST.log
  on "$1" swanctl "${@:2}" </dev/null >>"$LAB/swanctl-$1.log" 2>&1
}

# ike_start HOST...: charon runs on each of them, answers, and has loaded what stands in the host's /etc/swanctl.
ike_start() {
  local host pid i
  # Each host finds its own behind this link.
  [ -L /etc/strongswan.conf ] || ln -sfn swanctl/strongswan.conf /etc/strongswan.conf
  for host; do
    _ike_host "$host"
    _ike_runs "$host" && continue
    rm -f "$REPLY/run/charon.vici" # of one that was killed
    [ -e "$REPLY/etc/swanctl/strongswan.conf" ] || _ike_charon "$host"
    bg "$host" "charon-$host" /usr/lib/ipsec/charon
  done
  for host; do
    _ike_host "$host"
    pid=$(<"$LAB/charon-$host.pid")
    for ((i = 0; i < 400; i++)); do
      [ ! -S "$REPLY/run/charon.vici" ] && [ -d "/proc/$pid" ] || break
      sleep 0.05
    done
    _ike_swanctl "$host" --load-all --clear --noprompt ||
      fail "charon does not start on $host: $(tail -n 5 "$LAB/charon-$host.log" "$LAB/swanctl-$host.log")"
  done
}

# ike HOST...: configures charon on each of them, as the variables say, and starts it where it does not run.
ike() {
  local host ids=()
  [ $# -gt 0 ] || fail "ike: which hosts?"
  [ "${IKE_AUTH:-pubkey}" = psk ] || for host; do ids+=("${IKE_ID:-$host}"); done
  [ ${#ids[@]} = 0 ] || ike_cert "${ids[@]}"
  for host; do _ike_config "$host"; done
  ike_start "$@"
}

# ike_up HOST CHILD: HOST initiates it; the status says whether it has come up (one that is up already does not).
ike_up() {
  _ike_swanctl "$1" --initiate --child "$2"
}

# ike_down HOST CHILD: HOST closes its IKE_SA, and all that hangs on it.
ike_down() {
  _ike_swanctl "$1" --terminate --ike "$2"
}

_ike_end() { # _ike_end HOST SIGNAL: and it is gone
  local pid
  _ike_runs "$1" || fail "charon does not run on $1"
  pid=$(<"$LAB/charon-$1.pid")
  kill "-$2" "$pid"
  { wait "$pid"; } 2>/dev/null # of "Killed"
  for ((i = 0; i < 200; i++)); do # for one that another shell has started
    [ -d "/proc/$pid" ] || return 0
    sleep 0.1
  done
  fail "charon on $1 does not end"
}

# ike_stop HOST, ike_kill HOST: TERM, on which it takes down all that it has made, and KILL.
ike_stop() { _ike_end "$1" TERM; }
ike_kill() { _ike_end "$1" KILL; }

# ike_restart HOST: starts it again, as it was configured; one that runs gets TERM first.
ike_restart() {
  ! _ike_runs "$1" || ike_stop "$1"
  ike_start "$1"
}

# ike_sas HOST: a line for each child SA: NAME REQID STATE LOCAL-ID REMOTE-ID SPI-IN SPI-OUT, sorted.
ike_sas() {
  on "$1" swanctl --list-sas --raw | awk '{
    gsub(/[{}]/, " & ")
    for (i = 1; i <= NF; i++) {
      split($i, kv, "=")
      if ($i ~ /^(local-id|remote-id|name|reqid|state|spi-in|spi-out)=/) v[kv[1]] = kv[2]
      if (kv[1] == "remote-ts") print v["name"], v["reqid"], v["state"], v["local-id"], v["remote-id"], v["spi-in"], v["spi-out"]
    }
  }' | sort
}
