// The interoperability tests over Connect, and over gRPC-Web with the same client:
// `node interop_connect.mjs ADDRESS node1|node2|web|grpc-web proto|json`; prints a line for each case.
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const { need, modules, proto, say, special } = createRequire(import.meta.url)('./interop_common.js');
const load = (name) => import(pathToFileURL(path.join(modules, name)));
const { createClient, Code, ConnectError } = await load('@connectrpc/connect/dist/esm/index.js');
const { createConnectTransport } = await load('@connectrpc/connect-node/dist/esm/index.js');
const web = await load('@connectrpc/connect-web/dist/esm/index.js');
const { createFileRegistry, fromBinary } = await load('@bufbuild/protobuf/dist/esm/index.js');
const { FileDescriptorProtoSchema } = await load('@bufbuild/protobuf/dist/esm/wkt/index.js');

const [address, kind, format] = process.argv.slice(2);
const buffers = proto['grpc.testing.Empty'].fileDescriptorProtos;
const file = fromBinary(FileDescriptorProtoSchema, buffers[0]);
// protobufjs leaves the names of types relative.
const qualify = (on, key) => { if (on[key] && !on[key].startsWith('.')) on[key] = `.grpc.testing.${on[key]}`; };
file.messageType.forEach((message) => message.field.forEach((field) => qualify(field, 'typeName')));
file.service.forEach((service) => service.method.forEach((method) => {
  qualify(method, 'inputType');
  qualify(method, 'outputType');
}));
const registry = createFileRegistry(file, () => undefined);
const baseUrl = `http://${address}`;
const useBinaryFormat = format === 'proto';
const ofPages = {
  web: () => web.createConnectTransport({ baseUrl, useBinaryFormat, useHttpGet: true }),
  'grpc-web': () => web.createGrpcWebTransport({ baseUrl, useBinaryFormat }),
};
const transport = ofPages[kind]
  ? ofPages[kind]()
  : createConnectTransport({ baseUrl, useBinaryFormat, httpVersion: kind === 'node2' ? '2' : '1.1', useHttpGet: true });
const client = createClient(registry.getService('grpc.testing.TestService'), transport);
const other = createClient(registry.getService('grpc.testing.UnimplementedService'), transport);

async function attempt(name, work) {
  const seen = { case: name, code: 'OK' };
  try {
    Object.assign(seen, await work(seen));
  } catch (raw) {
    const error = ConnectError.from(raw);
    Object.assign(seen, { code: Code[error.code], message: error.rawMessage });
  }
  say(seen);
}

const body = (size) => ({ body: new Uint8Array(size) });
const status = { code: 2, message: 'test status message' };

async function sizesOf(stream, seen) {
  seen.sizes = [];
  for await (const response of stream) seen.sizes.push(response.payload.body.length);
  return {};
}

await attempt('empty_unary', () => client.emptyCall({}).then(() => ({})));
await attempt('large_unary', async () => {
  const response = await client.unaryCall({ responseSize: 314159, payload: body(271828) });
  return { size: response.payload.body.length };
});
const responseParameters = [31415, 9, 2653, 58979].map((size) => ({ size }));
await attempt('server_streaming', (seen) => sizesOf(client.streamingOutputCall({ responseParameters }), seen));
await attempt('empty_stream', (seen) => sizesOf(client.streamingOutputCall({}), seen));
if (!ofPages[kind]) {
  await attempt('client_streaming', async () => {
    async function* requests() {
      for (const size of [27182, 8, 1828, 45904]) yield { payload: body(size) };
    }
    return { size: (await client.streamingInputCall(requests())).aggregatedPayloadSize };
  });
}
await attempt('status_code_and_message', () => client.unaryCall({ responseStatus: status }));
await attempt('status_of_a_stream', (seen) =>
  sizesOf(client.streamingOutputCall({ responseParameters: [{ size: 1 }], responseStatus: status }), seen));
await attempt('special_status_message', () => client.unaryCall({ responseStatus: { code: 2, message: special } }));
await attempt('custom_metadata', async (seen) => {
  const headers = { 'x-grpc-test-echo-initial': 'test_initial_metadata_value', 'x-grpc-test-echo-trailing-bin': 'q6ur' };
  await client.unaryCall({ responseSize: 1 }, {
    headers,
    onHeader: (fields) => { seen.initial = fields.get('x-grpc-test-echo-initial'); },
    onTrailer: (fields) => { seen.trailing = fields.get('x-grpc-test-echo-trailing-bin'); },
  });
  for await (const _ of client.streamingOutputCall({ responseParameters: [{ size: 1 }] }, {
    headers,
    onHeader: (fields) => { seen.streamInitial = fields.get('x-grpc-test-echo-initial'); },
    onTrailer: (fields) => { seen.streamTrailing = fields.get('x-grpc-test-echo-trailing-bin'); },
  }));
  return {};
});
await attempt('cacheable_unary', async () => {
  const response = await client.cacheableUnaryCall({ responseSize: 3, payload: body(5) });
  return { size: response.payload.body.length };
});
await attempt('unimplemented_method', () => client.unimplementedCall({}));
await attempt('unimplemented_service', () => other.unimplementedCall({}));
const slow = { responseParameters: [{ size: 1, intervalUs: 5_000_000 }] };
await attempt('timeout_on_sleeping_server', (seen) => sizesOf(client.streamingOutputCall(slow, { timeoutMs: 200 }), seen));
await attempt('cancel_after_first_response', async (seen) => {
  const stop = new AbortController();
  const two = { responseParameters: [{ size: 1 }, { size: 1, intervalUs: 5_000_000 }] };
  for await (const _ of client.streamingOutputCall(two, { signal: stop.signal })) stop.abort();
  return seen;
});
process.exit();
