// A GraphQL service on graphql-yoga with the schema of conf/examples/graphql; it prints its port, and a line for each
// request.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const modules = path.join(__dirname, '../../target/clients/node/node_modules');
const { createSchema, createYoga } = require(path.join(modules, 'graphql-yoga'));
const { GraphQLError } = require(path.join(modules, 'graphql'));

process.stdin.resume().on('end', () => process.exit());
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const people = new Map([['1', { id: '1', name: 'Ada', role: 'WRITER' }], ['2', { id: '2', name: 'Grace', role: 'READER' }]]);
const fail = (code) => { throw new GraphQLError(`failed with ${code}`, { extensions: { code } }); };

const schema = createSchema({
  typeDefs: fs.readFileSync(path.join(__dirname, '../../conf/examples/graphql/schema.graphql'), 'utf8'),
  resolvers: {
    Query: {
      person: (_, { id }) => (id === 'secret' ? fail('UNAUTHENTICATED') : id === 'broken' ? fail('OTHER') : people.get(id)),
      people: (_, { first, role }) => [...people.values()].filter((one) => !role || one.role === role).slice(0, first),
    },
    Mutation: {
      addPerson: (_, { person }) => {
        const one = { id: String(people.size + 1), ...person };
        people.set(one.id, one);
        return one;
      },
    },
    Person: { friends: ({ id }, { first }) => (id === '2' ? fail('FRIENDS') : [people.get('2')].slice(0, first)) },
  },
});
const yoga = createYoga({ schema, logging: false, graphiql: false });
const server = http.createServer((request, response) => {
  say({ method: request.method, url: request.url });
  yoga(request, response);
});
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
