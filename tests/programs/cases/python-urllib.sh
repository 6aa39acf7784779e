# python's urllib and threads, with a threading server: errno as exceptions have it, timeouts, close.
needs=python3
serve() {
  echo "$canary" >"$folder/www/page"
  b srv /usr/bin/python3 -I -m http.server -d "$folder/www" "$port"
  wait_listen b "$port"
}
talk() {
  cat >"$folder/client.py" <<'END'
import errno, socket, sys, threading, urllib.error, urllib.request
port = sys.argv[1]
def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return type(error.reason).__name__, errno.errorcode.get(error.reason.errno, '')
for host, path in (('10.9.0.2:' + port, 'page'), ('10.9.0.2:' + port, 'none'), ('10.9.0.2:9', ''), ('10.9.0.2:8999', ''),
                   ('[fd00::2]:8999', ''), ('127.0.0.1:9', '')):
    print(path, get(f'http://{host}/{path}'))
answers = []
threads = [threading.Thread(target=lambda: answers.append(get(f'http://10.9.0.2:{port}/page'))) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(answers), set(answers))
s = socket.socket()
s.settimeout(0.5)
s.connect(('10.9.0.2', int(port)))
try:
    s.recv(1)
except OSError as error:
    print(type(error).__name__)
print(s.getpeername()[0], s.getsockname()[0], s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
copy = s.dup()
s.close()
copy.sendall(b'GET /page HTTP/1.0\r\n\r\n')
print(copy.makefile('rb').read().split()[-1])
for call in (lambda: copy.connect(('10.9.0.2', int(port))), lambda: s.send(b'x'), lambda: copy.listen(-5) or copy.accept()):
    try:
        call()
    except OSError as error:
        print(errno.errorcode[error.errno])
END
  a /usr/bin/python3 -I "$folder/client.py" "$port"
}
