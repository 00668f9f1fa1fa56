// The server of gRPC's interoperability tests on grpc-js; it prints its port, and a line for each call.
'use strict';
const { need, service, say } = require('./interop_common.js');
const grpc = need('@grpc/grpc-js');

process.stdin.resume().on('end', () => process.exit());

/// Returns the metadata of custom_metadata for head and trailers.
function echo(call) {
  const trailing = new grpc.Metadata();
  const initial = call.metadata.get('x-grpc-test-echo-initial');
  const binary = call.metadata.get('x-grpc-test-echo-trailing-bin');
  if (initial.length) {
    const head = new grpc.Metadata();
    head.set('x-grpc-test-echo-initial', initial[0]);
    call.sendMetadata(head);
  }
  if (binary.length) trailing.set('x-grpc-test-echo-trailing-bin', binary[0]);
  return trailing;
}

function unary(call, callback) {
  const { response_size: size, response_status: status } = call.request;
  say({ method: 'UnaryCall', payload: call.request.payload?.body?.length ?? 0 });
  const trailing = echo(call);
  if (status?.code) return callback({ code: status.code, details: status.message, metadata: trailing });
  callback(null, { payload: { body: Buffer.alloc(size) } }, trailing);
}

async function output(call) {
  say({ method: 'StreamingOutputCall', parameters: call.request.response_parameters.length });
  call.on('cancelled', () => say({ method: 'StreamingOutputCall', cancelled: true }));
  const trailing = echo(call);
  for (const { size, interval_us: interval } of call.request.response_parameters) {
    if (interval) await new Promise((done) => setTimeout(done, interval / 1000));
    if (call.cancelled) return;
    call.write({ payload: { body: Buffer.alloc(size) } });
  }
  const { response_status: status } = call.request;
  if (status?.code) return call.emit('error', { code: status.code, details: status.message, metadata: trailing });
  call.end(trailing);
}

function input(call, callback) {
  let total = 0;
  call.on('data', (request) => { total += request.payload?.body?.length ?? 0; });
  call.on('end', () => callback(null, { aggregated_payload_size: total }));
}

const server = new grpc.Server({ 'grpc.max_receive_message_length': 16 << 20 });
server.addService(service, {
  EmptyCall: (call, callback) => callback(null, {}),
  UnaryCall: unary,
  CacheableUnaryCall: unary,
  StreamingOutputCall: output,
  StreamingInputCall: input,
});
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  say({ port });
});
