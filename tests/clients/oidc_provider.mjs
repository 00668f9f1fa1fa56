// An OpenID provider: `node oidc_provider.mjs`; prints its port, and a line for each grant.
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = path.join(import.meta.dirname, '../../target/clients/node/node_modules');
const entry = createRequire(path.join(modules, 'x.js')).resolve('oidc-provider');
// The provider warns on standard output of what is for development alone.
console.info = console.warn = console.error;
const { Provider } = await import(pathToFileURL(entry));
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

const app = (client_id, rest) => ({
  client_id,
  client_secret: 'the secret of the app',
  redirect_uris: ['http://app.test/login/callback', 'https://app.test/login/callback'],
  post_logout_redirect_uris: ['http://app.test/bye'],
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
  ...rest,
});

const server = http.createServer((request, response) => handler(request, response));
let handler;
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      app('app'),
      app('short'),
      app('large'),
      app('public', { client_secret: undefined, token_endpoint_auth_method: 'none', grant_types: ['authorization_code'] }),
      app('body', { token_endpoint_auth_method: 'client_secret_post' }),
    ],
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: true },
    },
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'email', 'read', 'write'],
    claims: { openid: ['sub', 'filler'], email: ['email'] },
    conformIdTokenClaims: false,
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@app.test`, filler: ctx.oidc.client?.clientId === 'large' ? 'x'.repeat(6000) : undefined }),
    }),
    issueRefreshToken: () => true,
    rotateRefreshToken: true,
    ttl: {
      AccessToken: (ctx, token, client) => (client.clientId === 'short' ? 2 : 3600),
      IdToken: 3600,
      Interaction: 3600,
      Grant: 3600,
      Session: 3600,
      RefreshToken: 3600,
      ClientCredentials: 3600,
    },
    cookies: { keys: ['a key of the provider'] },
  });
  provider.on('grant.success', (ctx) => say({ grant: ctx.oidc.params.grant_type, client: ctx.oidc.client.clientId }));
  provider.on('grant.error', (ctx, error) => say({ refused: error.error, grant: ctx.oidc.params?.grant_type }));
  provider.on('server_error', (ctx, error) => console.error(error));
  handler = provider.callback();
  say({ port });
});
