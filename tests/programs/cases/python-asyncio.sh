# asyncio at both ends: non-blocking connect, epoll, a hundred at once, half-close, a refused connect.
needs=python3
serve() {
  cat >"$folder/server.py" <<'END'
import asyncio, signal, sys
async def serve(reader, writer):
    data = await reader.read()
    writer.write(data.upper() + b'|' + data)
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, ['10.9.0.2', 'fd00::2'], int(sys.argv[1]), backlog=200)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    await server.wait_closed()
asyncio.run(main())
sys.exit(3)
END
  b srv /usr/bin/python3 -I "$folder/server.py" "$port"
  wait_listen b "$port"
}
talk() {
  cat >"$folder/client.py" <<'END'
import asyncio, errno, sys
port, text = int(sys.argv[1]), sys.argv[2].encode()
async def ask(host):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(text * 300)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer == text.upper() * 300 + b'|' + text * 300
async def main():
    print(await ask('10.9.0.2'), await ask('fd00::2'), await ask('b'), text.decode())
    answers = await asyncio.gather(*(ask(('10.9.0.2', 'fd00::2')[i % 2]) for i in range(60)))
    print(len(answers), set(answers))
    for host, number in (('10.9.0.2', 9), ('fd00::2', 9), ('127.0.0.1', 9)):
        try:
            await asyncio.open_connection(host, number)
        except OSError as error:
            print(host, errno.errorcode[error.errno])
asyncio.run(main())
END
  a /usr/bin/python3 -I "$folder/client.py" "$port" "$canary"
}
