# python's processes: a forking http.server, connections passed to a worker (SCM_RIGHTS), multiprocessing's own listener and
# client, children by fork, by spawn and by subprocess that inherit a socket.
needs=python3
serve() {
  cat >"$folder/server.py" <<'END'
import http.server, multiprocessing as mp, multiprocessing.connection as mc, multiprocessing.reduction as mr
import signal, socket, socketserver, subprocess, sys
port, text = int(sys.argv[1]), sys.argv[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (text + ' ' + self.path + '\n').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
def web():
    Server(('::', port), Handler).serve_forever()
def worker(end):
    while True:
        with socket.socket(fileno=mr.recv_handle(end)) as client:
            client.sendall(b'passed ' + client.recv(100))
def passing():
    here, there = mp.Pipe()
    child = mp.Process(target=worker, args=(there,))
    child.start()
    with socket.create_server(('::', port + 1), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        while True:
            client, _ = listener.accept()
            mr.send_handle(here, client.fileno(), child.pid)
            client.close()
def objects():
    with mc.Listener(('10.9.0.2', port + 2), authkey=b'key') as listener:
        while True:
            with listener.accept() as client:
                client.send([client.recv(), {'n': 1}])
def inherited():
    code = 'import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(b"child " + s.recv(100))'
    with socket.create_server(('10.9.0.2', port + 3)) as listener:
        while True:
            client, _ = listener.accept()
            subprocess.run([sys.executable, '-I', '-c', code, str(client.fileno())], pass_fds=[client.fileno()])
            client.close()
all_of_them = [mp.Process(target=what) for what in (web, passing, objects, inherited)]
for one in all_of_them:
    one.start()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
signal.pause()
END
  b srv /usr/bin/python3 -I "$folder/server.py" "$port" "$canary"
  local i
  for i in 0 1 2 3; do wait_listen b $((port + i)); done
}
talk() {
  cat >"$folder/client.py" <<'END'
import errno, multiprocessing as mp, multiprocessing.connection as mc, os, socket, subprocess, sys, urllib.request
port, text = int(sys.argv[1]), sys.argv[2].encode()
def get(n):
    host = ('10.9.0.2', '[fd00::2]', 'b')[n % 3]
    return urllib.request.urlopen(f'http://{host}:{port}/{n}', timeout=30).read().decode()
def ask(where):
    with socket.create_connection((where[0], port + where[1]), 30) as one:
        one.sendall(text)
        return one.recv(100).decode()
if __name__ == '__main__':
    for way in ('fork', 'spawn'):
        with mp.get_context(way).Pool(3) as pool:
            print(way, pool.map(get, range(6)))
            print(way, pool.map(ask, [('10.9.0.2', 1), ('fd00::2', 1), ('10.9.0.2', 3)]))
    with mc.Client(('10.9.0.2', port + 2), authkey=b'key') as one:
        one.send(text)
        print(one.recv())
    with socket.create_connection(('10.9.0.2', port + 1), 30) as one:
        code = 'import os, sys; fd = int(sys.argv[1]); os.write(fd, sys.argv[2].encode()); print(os.read(fd, 100))'
        print(subprocess.run([sys.executable, '-I', '-c', code, str(one.fileno()), sys.argv[2]], capture_output=True,
                             pass_fds=[one.fileno()], env={}))
    try:
        socket.create_connection(('10.9.0.2', 9), 30)
    except OSError as error:
        print(errno.errorcode[error.errno])
END
  a /usr/bin/python3 -I "$folder/client.py" "$port" "$canary" | sed -E 's/pass_fds=[^)]*//; s/'"'"'[0-9]+'"'"', //'
}
