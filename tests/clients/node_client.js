// A client on Node's own http and http2: `node node_client.js SCENARIO http1|http2 ADDRESS [ARGUMENT...]`.
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');
const http2 = require('node:http2');

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const [scenario, version, address, ...rest] = process.argv.slice(2);
let session;

// A request stream whose answer is `{status, headers, trailers, informational, body}`.
function open(method, path, headers = {}) {
  if (version === 'http1') {
    const request = http.request(`http://${address}${path}`, { method, headers });
    const answer = new Promise((done, fail) => {
      const informational = [];
      request.on('information', (info) => informational.push({ status: info.statusCode, link: info.headers.link }));
      request.on('error', fail);
      request.on('close', () => fail(new Error('closed without a response')));
      request.on('response', (response) => done({ status: response.statusCode, headers: response.headers, informational, stream: response, trailers: () => response.trailers }));
    });
    return { request, answer };
  }
  session ??= http2.connect(`http://${address}`);
  session.on('error', () => {});
  const request = session.request({ ':method': method, ':path': path, ...headers }, { endStream: method === 'GET' });
  const answer = new Promise((done, fail) => {
    const informational = [];
    let trailers;
    request.on('headers', (info) => informational.push({ status: info[':status'], link: info.link }));
    request.on('trailers', (fields) => { trailers = fields; });
    request.on('error', fail);
    request.on('close', () => fail(new Error('closed without a response')));
    request.on('response', (fields) => done({ status: fields[':status'], headers: fields, informational, stream: request, trailers: () => trailers }));
  });
  return { request, answer };
}

async function finish(answer, more = {}) {
  const hash = crypto.createHash('sha256');
  let length = 0;
  let body = '';
  for await (const part of answer.stream) {
    hash.update(part);
    length += part.length;
    if (body.length < 2000) body += part.toString('latin1');
  }
  say({ status: answer.status, headers: { ...answer.headers }, informational: answer.informational, trailers: { ...answer.trailers() }, length, sha256: hash.digest('hex'), body, reset: answer.stream.rstCode || undefined, ...more });
}

const scenarios = {
  async get(path, ...headers) {
    const { request, answer } = open('GET', path, Object.fromEntries(headers.map((header) => header.split(': '))));
    request.end();
    await finish(await answer);
  },
  // write and end: DATA, and an empty DATA with END_STREAM.
  async writeEnd(path, count) {
    for (let number = 0; number < Number(count); number += 1) {
      const { request, answer } = open('POST', path);
      request.write('hello');
      setImmediate(() => request.end());
      await finish(await answer);
    }
  },
  async upload(path, size) {
    const pattern = Buffer.from(Array.from({ length: 251 * 256 }, (_, i) => i % 251));
    const { request, answer } = open('POST', path);
    (async () => {
      for (let left = Number(size); left > 0; left -= pattern.length) {
        if (!request.write(pattern.subarray(0, Math.min(left, pattern.length)))) await new Promise((go) => request.once('drain', go));
      }
      request.end();
    })();
    await finish(await answer);
  },
  // That many downloads at a time, over one connection if it is HTTP/2.
  async downloads(path, count) {
    await Promise.all(Array.from({ length: Number(count) }, async () => {
      const { request, answer } = open('GET', path);
      request.end();
      await finish(await answer);
    }));
  },
  async download(path) {
    const { request, answer } = open('GET', path);
    request.end();
    await finish(await answer);
  },
  // Uploads that are rejected: the answer has to be readable while the body is still being sent.
  async rejected(path, size, count) {
    for (let number = 0; number < Number(count); number += 1) {
      const { request, answer } = open('POST', path, { 'content-length': size });
      request.on('error', () => {});
      request.write(Buffer.alloc(Number(size)));
      request.end();
      try {
        await finish(await answer);
      } catch (error) {
        say({ error: error.code ?? error.message });
      }
    }
  },
  async expect(path) {
    const { request, answer } = open('POST', path, { expect: '100-continue', 'content-length': '5' });
    let continued = false;
    request.on('continue', () => {
      continued = true;
      request.end('hello');
    });
    request.flushHeaders?.();
    await finish(await answer, { continued });
  },
};
// Whatever hangs is said, and not waited for.
setTimeout(() => {
  say({ error: 'it hangs' });
  process.exit(1);
}, 10000).unref();
scenarios[scenario](...rest).then(() => session?.close() ?? http.globalAgent.destroy(), (error) => {
  say({ error: error.code ?? error.message });
  process.exit(1);
});
