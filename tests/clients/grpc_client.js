// A client on grpc-js: `node grpc_client.js rejections|works ADDRESS [SIZE] [name: value ...]`; prints a line for each call.
'use strict';
const path = require('node:path');
const grpc = require(path.join(__dirname, '../../target/clients/node/node_modules/@grpc/grpc-js'));

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const names = Object.fromEntries(Object.entries(grpc.status).map(([name, code]) => [code, name]));
const same = (bytes) => bytes;
const [scenario, address, ...rest] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure(), { 'grpc.enable_retries': 0, 'grpc.enable_http_proxy': 0, 'grpc.max_receive_message_length': 16 << 20 });
const within = (ms) => ({ deadline: Date.now() + ms });

function fail(call, error, done) {
  say({ call, code: names[error.code], details: error.details });
  done();
}

function unary(name, message, metadata, ms, tell) {
  return new Promise((done) => {
    const call = client.makeUnaryRequest('/test.Echo/Unary', same, same, message, metadata, within(ms), (error, reply) => {
      if (error) return fail(name, error, done);
      call.on('status', (status) => {
        say({ call: name, code: 'OK', ...tell(reply, status) });
        done();
      });
    });
  });
}

function clientStream(name, messages, metadata) {
  return new Promise((done) => {
    const call = client.makeClientStreamRequest('/test.Echo/ClientStream', same, same, metadata, within(5000), (error, reply) => {
      if (error) return fail(name, error, done);
      say({ call: name, code: 'OK', reply: reply.toString().slice(0, 100) });
      done();
    });
    messages.forEach((message) => call.write(message));
    call.end();
  });
}

function replies(name, call, done, onReply = () => {}) {
  const all = [];
  call.on('data', (reply) => {
    all.push(reply.toString().slice(0, 100));
    onReply(all.length);
  });
  call.on('error', (error) => fail(name, error, done));
  let ok = false;
  call.on('status', (status) => { ok = status.code === grpc.status.OK; });
  call.on('end', () => {
    if (!ok) return;
    say({ call: name, code: 'OK', replies: all });
    done();
  });
}

function serverStream(name, message, metadata, onReply) {
  return new Promise((done) => {
    const call = client.makeServerStreamRequest('/test.Echo/ServerStream', same, same, message, metadata, within(5000));
    replies(name, call, done, () => onReply?.(call));
  });
}

function bidi(name, count, metadata, message) {
  return new Promise((done) => {
    const call = client.makeBidiStreamRequest('/test.Echo/Bidi', same, same, metadata, within(5000));
    const next = (number) => (number < count ? call.write(message ?? Buffer.from(String(number))) : call.end());
    replies(name, call, done, next);
    next(0);
  });
}

const scenarios = {
  async rejections(size, ...headers) {
    const metadata = new grpc.Metadata();
    headers.forEach((header) => metadata.set(...header.split(': ')));
    const message = Buffer.alloc(Number(size), 'm');
    await unary('unary', message, metadata, 5000, (reply) => ({ reply: reply.toString().slice(0, 100) }));
    await serverStream('server_stream', message, metadata);
    await clientStream('client_stream', [message, message, message], metadata);
    await bidi('bidi', 3, metadata, message);
  },
  async works() {
    const none = new grpc.Metadata();
    const trailers = (status) => Object.keys(status.metadata.getMap()).sort();
    await unary('unary', Buffer.from('hello'), none, 5000, (reply, status) => ({ reply: reply.toString(), trailing: trailers(status) }));
    await serverStream('server_stream', Buffer.from('3'), none);
    await clientStream('client_stream', ['a', 'b', 'c'].map((text) => Buffer.from(text)), none);
    await bidi('bidi', 5, none);
    await unary('large', Buffer.alloc(3_000_000, 'x'), none, 5000, (reply) => ({ length: reply.length }));
    await serverStream('empty', Buffer.from('0'), none);
    await unary('status', Buffer.from('fail:'), none, 5000, () => ({}));
    await unary('deadline', Buffer.from('wait'), none, 500, () => ({}));
    await serverStream('cancelled', Buffer.from('1'), none, (call) => call.cancel());
  },
};
scenarios[scenario](...rest).then(() => client.close());
