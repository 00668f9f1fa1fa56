// Signed requests of aws4 and http-message-signatures: `node signers.js keys` prints keys; `node signers.js send ADDRESS
// FILE` sends requests that are signed with the keys in that file, and prints the status of each.
'use strict';
const path = require('node:path');
const modules = path.join(__dirname, '../../target/clients/node/node_modules');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const [command, address, file] = process.argv.slice(2);

function keys() {
  const pem = (pair) => ({
    private: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    public: pair.publicKey.export({ type: 'spki', format: 'pem' }),
  });
  const rsa = pem(crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }));
  return {
    'ed25519': pem(crypto.generateKeyPairSync('ed25519')),
    'ecdsa-p256-sha256': pem(crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' })),
    'rsa-pss-sha512': rsa,
    'rsa-v1_5-sha256': rsa,
    'hmac-sha256': { private: crypto.randomBytes(32).toString('hex') },
    'aws': { private: crypto.randomBytes(20).toString('hex') },
  };
}

// Sends a request as it is, and gives its status.
function send({ method, path, headers, body }) {
  return new Promise((done, fail) => {
    const [host, port] = address.split(':');
    const request = http.request({ host, port, method, path, headers, setHost: false }, (response) => {
      response.resume();
      response.on('end', () => done(response.statusCode));
    });
    request.on('error', fail);
    request.end(body);
  });
}

async function aws(known) {
  const aws4 = require(path.join(modules, 'aws4'));
  const credentials = { accessKeyId: 'AKID', secretAccessKey: known.aws.private };
  const hash = (body) => crypto.createHash('sha256').update(body).digest('hex');
  const body = JSON.stringify({ text: 'ä ö' });
  const of = (more) => ({ host: 'api.example.com', service: 'execute-api', region: 'eu', method: 'GET', ...more });
  const cases = {
    'get': of({ path: '/aws/a%20b/c?z=1&a=%C3%A4&a=1&empty=' }),
    'post': of({ path: '/aws/', method: 'POST', body, headers: { 'X-Amz-Content-Sha256': hash(body), 'X-Two': ' a   b ' } }),
    's3': of({ path: '/aws/%C3%A4/x y'.replace(' ', '%20'), service: 's3', method: 'PUT', body }),
    'presigned': of({ path: '/aws/key?X-Amz-Expires=60&b=1', signQuery: true }),
    'presigned s3': of({ path: '/aws/key?X-Amz-Expires=60', service: 's3', signQuery: true }),
  };
  for (const [name, request] of Object.entries(cases)) {
    const signed = aws4.sign(request, credentials);
    say({ name: `aws4 ${name}`, status: await send(signed) });
    say({ name: `aws4 ${name}, changed`, status: await send({ ...signed, path: `${signed.path}${signed.path.includes('?') ? '&' : '?'}x=1` }), wrong: true });
    if (request.body) {
      say({ name: `aws4 ${name}, another body`, status: await send({ ...signed, body: body.replace('ä', 'ü') }), wrong: true });
    }
  }
}

async function messages(known) {
  const { httpbis, createSigner } = require(path.join(modules, 'http-message-signatures'));
  const body = JSON.stringify({ text: 'ä ö' });
  const digest = `sha-512=:${crypto.createHash('sha512').update(body).digest('base64')}:`;
  for (const algorithm of ['ed25519', 'ecdsa-p256-sha256', 'rsa-pss-sha512', 'rsa-v1_5-sha256', 'hmac-sha256']) {
    const key = createSigner(known[algorithm].private, algorithm, algorithm);
    if (algorithm === 'rsa-pss-sha512') {
      // The package takes the longest salt; RFC 9421, section 3.3.1, wants one of 64 bytes.
      const padding = crypto.constants.RSA_PKCS1_PSS_PADDING;
      key.sign = async (data) => crypto.sign('sha512', data, { key: known[algorithm].private, padding, saltLength: 64 });
    }
    const fields = ['@method', '@authority', '@path', '@query', 'content-digest', 'content-type'];
    const request = {
      method: 'POST',
      url: 'http://api.example.com/message/a%20b?b=2&a=%C3%A4',
      headers: { 'Host': 'api.example.com', 'Content-Type': 'application/json', 'Content-Digest': digest, 'Content-Length': String(Buffer.byteLength(body)) },
    };
    const paramValues = { nonce: crypto.randomUUID(), created: new Date(), keyid: algorithm };
    const signed = await httpbis.signMessage({ key, fields, paramValues, params: ['created', 'keyid', 'alg', 'nonce'] }, request);
    const sent = { method: 'POST', path: '/message/a%20b?b=2&a=%C3%A4', headers: signed.headers, body };
    say({ name: `${algorithm}, another body`, status: await send({ ...sent, body: body.replace('ä', 'ü') }), wrong: true });
    say({ name: `${algorithm}, another path`, status: await send({ ...sent, path: '/message/a%20c?b=2&a=%C3%A4' }), wrong: true });
    say({ name: `${algorithm}, again`, status: await send(sent), wrong: true });
    const fresh = { ...paramValues, nonce: crypto.randomUUID() };
    const once = await httpbis.signMessage({ key, fields, paramValues: fresh, params: ['created', 'keyid', 'nonce'] }, request);
    say({ name: algorithm, status: await send({ ...sent, headers: once.headers }) });
    say({ name: `${algorithm}, replayed`, status: await send({ ...sent, headers: once.headers }), wrong: true });
    const target = await httpbis.signMessage(
      { key, fields: ['@method', '@target-uri'], paramValues: { created: new Date(), keyid: algorithm }, params: ['created', 'keyid'] },
      { method: 'GET', url: 'http://api.example.com/message/x', headers: { 'Host': 'api.example.com' } },
    );
    say({ name: `${algorithm}, target`, status: await send({ method: 'GET', path: '/message/x', headers: target.headers }) });
  }
}

(async () => {
  if (command === 'keys') return say(keys());
  const known = JSON.parse(fs.readFileSync(file, 'utf8'));
  await aws(known);
  await messages(known);
})();
