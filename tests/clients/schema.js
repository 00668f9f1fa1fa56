// Validates YAML files against a schema with ajv in strict mode: schema.js SCHEMA FILE... prints a line of JSON for
// each.
'use strict';
const path = require('path');
const fs = require('fs');
const load = (name) => require(path.join(__dirname, '../../target/clients/node/node_modules', name));
const Ajv = load('ajv/dist/2020');
const YAML = load('yaml');

const [schema, ...files] = process.argv.slice(2);
const validate = new Ajv({ strict: true, allErrors: true }).compile(JSON.parse(fs.readFileSync(schema, 'utf8')));
for (const file of files) {
  const document = YAML.parse(fs.readFileSync(file, 'utf8'), { merge: true });
  const valid = validate(document);
  const error = valid ? null : validate.errors[0];
  console.log(JSON.stringify({ file, valid, path: error && error.instancePath, error: error && error.message }));
}
