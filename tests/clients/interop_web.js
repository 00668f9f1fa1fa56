// The interoperability tests over grpc-web: `node interop_web.js ADDRESS text|binary`; prints a line for each case.
'use strict';
const { need, service, unimplemented, say, special } = require('./interop_common.js');
global.XMLHttpRequest = need('xhr2').XMLHttpRequest;
const web = need('grpc-web');

const [address, form] = process.argv.slice(2);
const client = new web.GrpcWebClientBase({ format: form });
const names = Object.fromEntries(Object.entries(web.StatusCode).map(([name, code]) => [code, name]));

function descriptor(definition) {
  const serialize = (value) => new Uint8Array(definition.requestSerialize(value));
  const deserialize = (bytes) => definition.responseDeserialize(Buffer.from(bytes));
  const kind = definition.responseStream ? 'server_streaming' : 'unary';
  return new web.MethodDescriptor(definition.path, kind, Object, Object, serialize, deserialize);
}

function unary(definition, request, metadata = {}) {
  return new Promise((done) => {
    const seen = { metadata: {}, errors: 0 };
    const url = `http://${address}${definition.path}`;
    const call = client.rpcCall(url, request, metadata, descriptor(definition), (error, response) => {
      if (error) {
        seen.errors += 1;
        Object.assign(seen, { code: names[error.code], message: error.message });
      } else {
        Object.assign(seen, { code: 'OK', response });
      }
      // A second call of the callback would be seen.
      setTimeout(() => done(seen), 20);
    });
    call.on('metadata', (metadata) => Object.assign(seen.metadata, metadata));
    call.on('status', (status) => { seen.trailers = status.metadata; });
  });
}

function stream(definition, request, metadata = {}) {
  return new Promise((done) => {
    const seen = { sizes: [], code: 'none' };
    const url = `http://${address}${definition.path}`;
    const call = client.serverStreaming(url, request, metadata, descriptor(definition));
    const end = () => setTimeout(() => done(seen), 20);
    call.on('data', (response) => {
      seen.sizes.push(response.payload.body.length);
    });
    call.on('status', (status) => { if (status.code === 0) { seen.code = 'OK'; } });
    call.on('error', (error) => { Object.assign(seen, { code: names[error.code], message: error.message }); end(); });
    call.on('end', end);
  });
}

const sizes = [31415, 9, 2653, 58979];
const parameters = sizes.map((size) => ({ size }));

async function main() {
  const { EmptyCall, UnaryCall, StreamingOutputCall, UnimplementedCall } = service;
  const tell = async (name, result) => say({ case: name, ...(await result) });
  await tell('empty_unary', unary(EmptyCall, {}));
  const large = await unary(UnaryCall, { response_size: 314159, payload: { body: Buffer.alloc(271828) } });
  say({ case: 'large_unary', code: large.code, size: large.response?.payload.body.length });
  await tell('server_streaming', stream(StreamingOutputCall, { response_parameters: parameters }));
  await tell('empty_stream', stream(StreamingOutputCall, { response_parameters: [] }));
  const status = { code: 2, message: 'test status message' };
  await tell('status_code_and_message', unary(UnaryCall, { response_status: status }));
  await tell('status_of_a_stream', stream(StreamingOutputCall, { response_parameters: [{ size: 1 }], response_status: status }));
  await tell('special_status_message', unary(UnaryCall, { response_status: { code: 2, message: special } }));
  const metadata = { 'x-grpc-test-echo-initial': 'test_initial_metadata_value', 'x-grpc-test-echo-trailing-bin': 'q6ur' };
  await tell('custom_metadata', unary(UnaryCall, { response_size: 1 }, metadata));
  await tell('unimplemented_method', unary(UnimplementedCall, {}));
  await tell('unimplemented_service', unary(unimplemented.UnimplementedCall, {}));
  const slow = { response_parameters: [{ size: 1, interval_us: 5_000_000 }] };
  await tell('timeout_on_sleeping_server', stream(StreamingOutputCall, slow, { deadline: String(Date.now() + 200) }));
}

main().then(() => process.exit());
