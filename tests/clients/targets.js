// Node's own servers as targets: `node targets.js http1`, or `http2` for h2c, or `https CERT KEY`.
// The path says what is done; a line of JSON is printed for each request and each stream that was reset.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const https = require('node:https');

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const h2 = process.argv[2] === 'http2';
const DATE = 'Tue, 15 Nov 1994 08:12:31 GMT';
let events = [];

// Passed on as it comes, so that the sender sees progress only if nothing on the way collects it.
function mirror(request, response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream' });
  request.pipe(response);
}

function digest(request, response) {
  const hash = crypto.createHash('sha256');
  let length = 0;
  let text = '';
  request.on('data', (part) => {
    hash.update(part);
    length += part.length;
    if (text.length < 500) text += part.toString('latin1');
  });
  request.on('end', () => {
    if (request.aborted || request.stream?.rstCode) return say({ target: request.url, incomplete: text.slice(0, 500) });
    const line = {
      method: request.method, target: request.url, headers: request.headers, version: request.httpVersion,
      length, sha256: hash.digest('hex'), body: text.slice(0, 500), trailers: request.trailers,
    };
    say(line);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(line));
  });
}

// `count` bytes, byte i being i modulo 251.
function download(response, count) {
  const pattern = Buffer.from(Array.from({ length: 251 * 256 }, (_, i) => i % 251));
  let left = count;
  response.setHeader('content-type', 'application/octet-stream');
  const more = () => {
    while (left > 0) {
      const part = pattern.subarray(0, Math.min(left, pattern.length));
      left -= part.length;
      if (!response.write(part)) return response.once('drain', more);
    }
    return response.end();
  };
  more();
}

function serve(request, response) {
  const url = new URL(request.url, 'http://target');
  request.on('error', () => {});
  response.on('error', () => {});
  response.on('close', () => {
    if (request.aborted || !response.writableFinished) say({ target: request.url, aborted: true, code: h2 ? response.stream?.rstCode : undefined });
  });
  switch (url.pathname) {
    case '/mirror': return mirror(request, response);
    case '/download': return download(response, Number(url.searchParams.get('bytes')));
    case '/date':
      response.setHeader('date', DATE);
      return response.end('ok');
    case '/no-date':
      response.sendDate = false;
      return response.end('ok');
    case '/not-modified':
      response.writeHead(304, { etag: '"v1"', ...(h2 ? {} : { 'content-length': 1000 }) });
      return response.end();
    case '/hints':
      response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
      return digest(request, response);
    // 103, and the rest only when somebody else has asked for /release: the client has to have the 103 before.
    case '/hints-then-wait':
      response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
      return events.push(() => digest(request, response));
    case '/events':
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write('data: first\n\n');
      return events.push(() => response.end('data: second\n\n'));
    case '/release':
      events.forEach((go) => go());
      events = [];
      return response.end('released');
    case '/trailers':
      response.writeHead(200, { 'content-type': 'text/plain', trailer: 'x-sum' });
      response.write('body');
      if (h2) {
        response.addTrailers({ 'x-sum': '42' });
        return response.end();
      }
      response.addTrailers({ 'x-sum': '42' });
      return response.end();
    // Ends in the middle of its response.
    case '/reset':
      response.write('hello', () => (h2 ? response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : request.socket.destroy()));
      return undefined;
    // Answers before the body is there.
    case '/early': return response.end('early');
    // Nothing is ever answered; whether the request ends is seen by the line above.
    case '/hang':
      say({ target: request.url, hanging: true });
      return request.resume();
    default: return digest(request, response);
  }
}

const kinds = {
  http1: () => http.createServer(serve),
  http2: () => http2.createServer(serve),
  https: () => https.createServer({ cert: fs.readFileSync(process.argv[3]), key: fs.readFileSync(process.argv[4]) }, serve),
};
const server = kinds[process.argv[2]]();
server.on('checkContinue', (request, response) => {
  response.writeContinue();
  serve(request, response);
});
server.on('clientError', (error, socket) => {
  say({ garbage: String(error.code), bytes: error.rawPacket?.toString('latin1').slice(0, 200) });
  if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n');
});
server.on('session', (session) => session.on('error', () => {}));
server.on('connection', () => say({ connected: true }));
server.keepAliveTimeout = 60000;
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
process.stdin.resume().on('end', () => process.exit(0));
