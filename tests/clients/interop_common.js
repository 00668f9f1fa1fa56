// What the scripts of the interoperability tests have in common.
'use strict';
const path = require('node:path');

const modules = path.join(__dirname, '../../target/clients/node/node_modules');
const need = (name) => require(path.join(modules, name));
const proto = need('@grpc/proto-loader').loadSync(path.join(__dirname, 'interop.proto'), { keepCase: true, defaults: true });

module.exports = {
  modules,
  need,
  proto,
  service: proto['grpc.testing.TestService'],
  unimplemented: proto['grpc.testing.UnimplementedService'],
  say: (line) => process.stdout.write(JSON.stringify(line) + '\n'),
  special: '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n',
};
