# Other preloads beside the shim, before it and behind it: allocators, socket shims.
# (Programs built with ASan: suites/asan_results, as ASan does not start on user-mode-linux.)
needs='python3 socat'
serve() {
  b srv socat "TCP6-LISTEN:$port,ipv6only=0,fork,reuseaddr,backlog=50" EXEC:cat
  wait_listen b "$port"
}
# with FRONT BEHIND CMD...: libraries around the shim, where there is one.
with() {
  local shim=
  [ ${#client_under[@]} = 0 ] || shim=$LATCHKEY_SHIM
  a env "LD_PRELOAD=$1 $shim $2" "${@:3}"
}
# In front, socket_wrapper takes libc's functions by itself and all its calls past the shim: no latch (latchkey.1). The fence
# stops what a rule protects.
past_shim() { # past_shim LIBRARY: what connect says of a port where nobody listens; latched, EPERM in its place, and nothing is sent
  local said sent connect='import errno, socket, sys
print(errno.errorcode.get(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))), "connected"))'
  said=$(with "$1" '' /usr/bin/python3 -I -c "$connect" 10.9.0.2 "$((port + 9))")
  if [ "$mode" = latched ]; then
    clear_octets wire none >/dev/null # what was sent until now is in the file
    sent=$(tcpdump -n -r "$LAB/wire.pcap" "tcp port $((port + 9))" 2>/dev/null | wc -l)
    [ "$said/$sent" = $'EPERM\nstatus 0/0' ] || echo "past the fence: $sent packets"
    said=${said/EPERM/ECONNREFUSED}
  fi
  echo "$said"
}
talk() {
  local library libraries=/usr/lib/x86_64-linux-gnu client=(/usr/bin/python3 -I "$folder/client.py" "$port" "$canary")
  cat >"$folder/client.py" <<'END'
import errno, os, socket, subprocess, sys, threading
port, text = int(sys.argv[1]), sys.argv[2].encode()
def ask(host):
    with socket.create_connection((host, port), 30) as one:
        one.sendall(text)
        return one.recv(100)
print(ask('10.9.0.2'), ask('fd00::2'), os.path.basename(sys.argv[0]))
got = []
threads = [threading.Thread(target=lambda: got.append(ask('10.9.0.2'))) for _ in range(4)]
[one.start() for one in threads]
[one.join() for one in threads]
print(got, subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout)
one = socket.socket()
print(one.connect_ex(('10.9.0.2', 9)) == errno.ECONNREFUSED)
# The neighbours are there: this test would otherwise be of nothing.
print(sorted({line.split('/')[-1].strip() for line in open('/proc/self/maps') if any(
    word in line for word in ('jemalloc', 'tcmalloc', 'proxychains', 'socket_wrapper'))}))
END
  printf 'strict_chain\nquiet_mode\nlocalnet 0.0.0.0/0.0.0.0\nlocalnet ::/0\n[ProxyList]\nsocks4 127.0.0.1 9\n' >"$folder/proxychains.conf"
  export PROXYCHAINS_CONF_FILE=$folder/proxychains.conf PROXYCHAINS_QUIET_MODE=1
  for library in libjemalloc.so.2 libtcmalloc_minimal.so.4 libproxychains.so.4 libsocket_wrapper.so; do
    library=$(echo "$libraries"/"$library"*)
    library=${library%% *}
    if [[ $library = *socket_wrapper* ]]; then
      past_shim "$library"
    else
      with "$library" '' "${client[@]}"
    fi
    with '' "$library" "${client[@]}"
  done
}
