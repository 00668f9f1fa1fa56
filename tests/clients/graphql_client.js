// A client of GraphQL over HTTP on the package graphql: `node graphql_client.js ADDRESS`; prints a line for each request.
'use strict';
const path = require('node:path');
const { buildClientSchema, getIntrospectionQuery, parse, print, validate } = require(path.join(__dirname, '../../target/clients/node/node_modules/graphql'));

const [address] = process.argv.slice(2);
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

async function send(body, accept = 'application/graphql-response+json, application/json;q=0.9') {
  const headers = { 'content-type': 'application/json', accept };
  const response = await fetch(`http://${address}/graphql`, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, type: response.headers.get('content-type').split(';')[0], body: await response.json() };
}

async function main() {
  const read = await send({ query: getIntrospectionQuery() });
  say({ case: 'introspection', status: read.status, errors: read.body.errors });
  if (read.body.data) {
    const schema = buildClientSchema(read.body.data);
    const document = parse('query People($first: Int) { people(first: $first) { ...P } } fragment P on Person { id name }');
    const answer = await send({ query: print(document), variables: { first: 1 } });
    say({ case: 'query', valid: validate(schema, document).length === 0, ...answer });
  }
  say({ case: 'deep', ...(await send({ query: `{ people { ${'friends { '.repeat(30)} id ${'}'.repeat(30)} } }` })) });
  say({ case: 'known', ...(await send({ documentId: 'person-1', variables: { id: '1' } })) });
}

main();
