# Event loops whose connection waits for keys (asyncio, node, Java's NIO, an nginx upstream): nobody is told early, nobody spins,
# all get through.
# c takes no part in the other cases: its keys come by IKE.
needs='python3 node nginx curl java javac'

ticks() { # CPU time of all programs of that name on a, in hundredths of a second
  local pid sum=0 fields
  for pid in $(on a pgrep -x "$1"); do
    read -ra fields <<<"$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)"
    sum=$((sum + ${fields[11]:-0} + ${fields[12]:-0}))
  done
  echo $sum
}
wakes() { # how often the threads of all programs of that name on a have gone to sleep
  local pid
  for pid in $(on a pgrep -x "$1"); do cat "/proc/$pid/task"/*/status; done 2>/dev/null |
    awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum + 0 }'
}
holds() { [ "$(ip -n a xfrm policy | grep -cE 'reqid 42949[0-9]{5}')" -gt 0 ]; }
charon_c() { kill "-$1" "$(cat "$LAB/charon-c.pid")"; }
bad() {
  echo "FAIL loops: $*"
  tail -n 5 "$LAB/$1".log "$LAB"/broker-[ac].log | sed 's/^/  | /'
  charon_c CONT
}

configure() { # configure NAME SERVER: an nginx of one process
  mkdir -p "$folder/$1"
  cat >"$folder/$1/conf" <<END
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { $2 }
}
END
}

# waits NAME PROGRAM CMD...: starts it on a; while c's charon sleeps it is told nothing, sleeps and uses no CPU; then it gets through.
waits() {
  local name=$1 program=$2 before after woken
  shift 2
  ike_down a a-c >/dev/null 2>&1
  charon_c STOP
  bg a "$name" "$@"
  retry 90 holds || { bad "$name" 'no connection waits for keys'; return 1; }
  sleep 2 # to start is not what is measured
  woken=$(wakes "$program") before=$(ticks "$program")
  sleep 2
  after=$(ticks "$program") woken=$(($(wakes "$program") - woken))
  echo "$name: $((after - before)) ticks, $woken wake-ups in two seconds" >&2
  [ "$(on a pgrep -cx "$program")" -gt 0 ] || { bad "$name" 'it is gone'; return 1; }
  [ $((after - before)) -lt 60 ] || { bad "$name" "it spins: $((after - before)) ticks in two seconds"; return 1; }
  [ $woken -lt 100 ] || { bad "$name" "it spins: woken $woken times in two seconds"; return 1; }
  grep -q "$canary" "$LAB/$name.log" && { bad "$name" 'it was told early'; return 1; }
  charon_c CONT
  retry 40 grep -q "$canary" "$LAB/$name.log" || { bad "$name" 'it gets no answer'; return 1; }
}

alone() {
  local under nio
  port=8990 canary=canary-loops folder=$LAB/loops
  mkdir -p "$folder/www"
  chmod 755 "$folder" "$folder/www"
  echo $canary >"$folder/www/page"
  policy "$folder/in.toml" in local_port a.lab
  policy "$folder/out.toml" out remote_port c.lab
  sed -i 's/^\[\[rule\]\]/&\nacquire_timeout = "60s"/' "$folder/out.toml"
  under=(latchkey run -p "$folder/out.toml" --)
  export IKE_CHARON='retransmit_tries = 6' # about 30 s
  ike a c
  bg c broker-c latchkeyd
  retry 20 grep -qs 'latchkeyd: ready' "$LAB/broker-c.log" || { bad broker-c 'no broker'; return; }
  configure srv "listen $port; root $folder/www;"
  bg c loops-srv latchkey run -p "$folder/in.toml" -- nginx -p "$folder/srv/" -e stderr -c "$folder/srv/conf"
  wait_listen c $port
  configure clear "listen 7991; root $folder/www;"
  bg c loops-clear nginx -p "$folder/clear/" -e stderr -c "$folder/clear/conf"
  wait_listen c 7991

  cat >"$folder/loop.py" <<'END'
import asyncio, selectors, sys
class Counting(selectors.EpollSelector):
    wakes = 0
    def select(self, timeout=None):
        events = super().select(timeout)
        Counting.wakes += len(events)
        return events
async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    connected = Counting.wakes
    writer.write(b'GET /page HTTP/1.0\r\n\r\n')
    print((await reader.read()).decode().split('\n')[-2], connected, flush=True)
loop = asyncio.SelectorEventLoop(Counting())
loop.run_until_complete(main())
END
  waits asyncio python3 "${under[@]}" /usr/bin/python3 -I "$folder/loop.py" 10.9.0.3 $port || return
  # Level-triggered, asyncio hears twice of the same; no more often than without Latchkey.
  on a /usr/bin/python3 -I "$folder/loop.py" 10.9.0.3 7991 >"$folder/bare"
  diff "$folder/bare" "$LAB/asyncio.log" || { bad asyncio 'not woken as often as it is bare'; return; }

  waits node node "${under[@]}" node -e "
    require('http').get('http://10.9.0.3:$port/page', (answer) => answer.on('data', (part) => console.log(String(part))));" || return

  cat >"$folder/Loop.java" <<'END'
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;

class Loop {
  public static void main(String[] arguments) throws Exception {
    Selector selector = Selector.open();
    SocketChannel channel = SocketChannel.open();
    channel.configureBlocking(false);
    channel.connect(new InetSocketAddress(arguments[0], Integer.parseInt(arguments[1])));
    SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
    int wakes = 0;
    do {
      selector.select();
      selector.selectedKeys().clear();
      wakes++;
    } while (!channel.finishConnect());
    key.interestOps(SelectionKey.OP_READ);
    channel.write(ByteBuffer.wrap("GET /page HTTP/1.0\r\n\r\n".getBytes()));
    ByteBuffer data = ByteBuffer.allocate(4096);
    while (channel.read(data) >= 0) {
      selector.select();
      selector.selectedKeys().clear();
    }
    System.out.println(new String(data.array(), 0, data.position()).replaceAll("(?s).*\r\n\r\n", "").trim() + " " + wakes);
  }
}
END
  javac -d "$folder" "$folder/Loop.java"
  # Threads of the JVM's own wake up, too (about 14 times a second; with its statistics 20 times more).
  nio=(java -Xmx64m -Xint -XX:-UsePerfData -cp "$folder" Loop 10.9.0.3)
  waits nio java "${under[@]}" "${nio[@]}" $port || return
  on a "${nio[@]}" 7991 >"$folder/bare"
  diff "$folder/bare" "$LAB/nio.log" || { bad nio 'not woken as often as it is bare'; return; }

  configure proxy "listen 7990; location / { proxy_pass http://10.9.0.3:$port; proxy_connect_timeout 60s; }"
  bg a loops-nginx "${under[@]}" nginx -p "$folder/proxy/" -e stderr -c "$folder/proxy/conf"
  wait_listen a 7990
  waits upstream nginx curl -sS http://10.9.0.1:7990/page || return
  echo 'ok loops'
}
