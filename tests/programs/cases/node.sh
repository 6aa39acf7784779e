# node: an HTTP server and clients with and without keep-alive, a refused connection, many at once.
needs=node
serve() {
  cat >"$folder/server.js" <<'JS'
const [port, canary] = process.argv.slice(2);
require('http').createServer((request, answer) => answer.end(`${canary} ${request.url}\n`)).listen(Number(port), '::');
JS
  cat >"$folder/client.js" <<'JS'
const http = require('http');
const get = (url, agent) => new Promise((done) => {
  http.get(url, {agent}, (answer) => {
    let text = '';
    answer.on('data', (part) => text += part);
    answer.on('end', () => done(`${answer.statusCode} ${text.trim()}`));
  }).on('error', (error) => done(error.code));
});
(async () => {
  const port = process.argv[2];
  const agent = new http.Agent({keepAlive: true, maxSockets: 1});
  for (const host of ['10.9.0.2', '[fd00::2]', 'b']) {
    console.log(await get(`http://${host}:${port}/one`), await get(`http://${host}:${port}/two`, agent));
  }
  const many = await Promise.all([...Array(20).keys()].map((i) => get(`http://10.9.0.2:${port}/${i}`)));
  console.log(many.join('; '));
  console.log(await get('http://10.9.0.2:9/'), await get('http://10.9.0.2:8999/'));
  agent.destroy();
})();
JS
  b srv node "$folder/server.js" "$port" "$canary"
  wait_listen b "$port"
}
talk() {
  a node "$folder/client.js" "$port"
}
