//! What to write instead of the words that other programs, habits and earlier versions suggest.
//!
//! A hint is for a key or a word below keys: `health.active` is every mapping at the end of such a path, `^` the whole
//! configuration, and an empty text any mapping. Lists do not count.

use super::trail::Trail;

/// A hint: below which keys, for which words, what to write.
type Hint = (&'static str, &'static [&'static str], &'static str);

/// Hints for keys that are unknown.
const KEYS: &[Hint] = &[
    (
        "^",
        &["upstream", "backends", "backend", "services", "clusters", "pools"],
        "write `upstreams: {NAME: {targets: […]}}`",
    ),
    ("^", &["listener", "servers", "server", "entryPoints", "frontends"], "write `listeners: [{name: …, address: …}]`"),
    (
        "^",
        &["route", "locations", "rules", "virtual_hosts", "vhosts"],
        "write `routes: [{name: …, match: …, action: …}]`",
    ),
    ("^", &["filters", "plugins", "middlewares", "middleware"], "filters of all routes are `defaults: {filters: […]}`"),
    ("^", &["port", "listen", "bind", "address"], "write `listeners: [{name: main, address: 0.0.0.0:8080}]`"),
    ("^", &["users", "clients", "keys", "api_keys"], "write `consumers: {NAME: {credentials: […]}}`"),
    (
        "^",
        &["_format_version", "_transform"],
        "this is a file of Kong: services are upstreams here, and plugins filters",
    ),
    (
        "^",
        &["apiVersion", "kind", "metadata", "spec"],
        "this is a file of Kubernetes, and no configuration of a gateway",
    ),
    ("^", &["static_resources", "dynamic_resources", "node"], "this is a file of Envoy: clusters are upstreams here"),
    (
        "^",
        &["http", "tcp", "udp", "providers"],
        "this is a file of another program: write listeners, upstreams and routes",
    ),
    (
        "^",
        &["anchors", "definitions", "templates", "shared"],
        "what only anchors use stands below a key that begins with x-",
    ),
    (
        "^",
        &["tls", "ssl", "certificates"],
        "certificates belong to a listener: `listeners: [{tls: {certificates: […]}}]`",
    ),
    ("listeners", &["port", "listen", "bind", "host", "ip"], "write `address: 0.0.0.0:8080`"),
    (
        "listeners",
        &["cert", "certs", "certificate", "certificates", "ssl", "key"],
        "write `tls: {certificates: [{cert: …, key: …}]}`",
    ),
    ("listeners", &["protocol"], "write `protocols: [http1, http2]`"),
    ("listeners", &["routes"], "routes name their listeners: `listeners: […]` in a route"),
    ("listeners", &["max_body", "client_max_body_size", "body_size"], "write `limits: {body: …}`"),
    (
        "listeners.tls",
        &["cert", "key", "certificate", "cert_file", "key_file"],
        "write `certificates: [{cert: …, key: …}]`",
    ),
    (
        "listeners.tls",
        &["ssl_client_certificate", "client_ca", "ca", "ca_file", "trusted_ca", "client_auth", "mtls", "verify"],
        "write `client: {ca: …}`",
    ),
    ("listeners.tls", &["ssl_verify_client", "require_client_certificate"], "write `client: {mode: required}`"),
    (
        "listeners",
        &["accept-proxy", "accept_proxy", "proxy", "send_proxy", "real_ip_from", "set_real_ip_from"],
        "write `proxy_protocol: {from: [NETWORK]}`, or `trusted_proxies` for headers",
    ),
    ("listeners", &["real_ip_header", "forwarded"], "write `client_address: forwarded` or `x_forwarded_for`"),
    ("proxy_protocol", &["trusted", "trusted_ips", "trustedIPs", "allow", "networks"], "write `from`"),
    ("proxy_protocol", &["required", "mode", "insecure"], "write `others: reject`, or accept"),
    ("listeners.tls", &["ssl_protocols", "protocols", "versions", "version"], "write `min_version: \"1.2\"`"),
    (
        "listeners.tls",
        &["ssl_ciphers", "cipher_suites", "cipher_list"],
        "write `preset: intermediate`, or `ciphers: […]`",
    ),
    ("listeners.tls", &["ssl_crl", "crl"], "write `client: {crl: …}`"),
    ("listeners.tls", &["sni", "domains"], "write `hosts: [{names: […]}]`"),
    ("client", &["ca_file", "ca_cert", "trusted_ca", "certificate", "cert"], "write `ca`"),
    ("client", &["required", "require", "verify", "auth"], "write `mode: required` or `mode: optional`"),
    ("client", &["crls", "crl_file", "revocation"], "write `crl`"),
    ("certificates", &["ssl_stapling", "ssl_stapling_file", "stapling", "ocsp_file", "staple"], "write `ocsp`"),
    (
        "certificates",
        &["letsencrypt", "auto", "domains", "domain", "names", "name"],
        "write `acme: [NAME]`, and a section acme",
    ),
    (
        "^",
        &["letsencrypt", "certificatesResolvers", "auto_https"],
        "write `acme: {terms_of_service_agreed: true, state: FOLDER}`",
    ),
    ("acme", &["email", "mail", "contacts"], "write `contact`"),
    ("acme", &["server", "url", "ca_server", "caServer", "directory_url"], "write `directory`"),
    ("acme", &["storage", "folder", "path", "cache"], "write `state`"),
    ("acme", &["accept_terms", "agree_tos", "agreed", "tos"], "write `terms_of_service_agreed: true`"),
    (
        "acme",
        &["httpChallenge", "tlsChallenge", "challenges", "http_challenge"],
        "write `challenge: http_01` or tls_alpn_01",
    ),
    ("certificates", &["chain", "certificate", "cert_file", "crt"], "write `cert`"),
    ("certificates", &["private_key", "key_file"], "write `key`"),
    (
        "upstreams.*",
        &["servers", "server", "nodes", "endpoints", "hosts", "backends", "urls", "url", "address", "target"],
        "write `targets: [HOST:PORT]`",
    ),
    ("upstreams.*", &["lb", "algorithm", "policy", "strategy", "load_balancing", "method"], "write `balance`"),
    ("upstreams.*", &["timeout", "connect_timeout", "read_timeout"], "write `timeouts: {connect: …, read: …}`"),
    ("upstreams.*", &["retries", "max_retries"], "write `retry: {attempts: …}`"),
    (
        "upstreams.*",
        &["healthcheck", "health_check", "healthchecks", "check", "checks"],
        "write `health: {active: {path: …}}`",
    ),
    ("upstreams.*", &["circuit_breaker", "outlier_detection"], "write `breaker`, or `health: {passive: …}`"),
    ("upstreams.*", &["weight"], "a weight belongs to a target: `targets: [{address: …, weight: …}]`"),
    ("upstreams.*", &["keepalive", "keep_alive"], "write `timeouts: {idle: …}`"),
    ("targets", &["host", "url", "port", "ip", "server"], "write `address: HOST:PORT`"),
    (
        "health",
        &["path", "interval", "timeout", "status", "fall", "rise", "port", "type", "http"],
        "write `active: {path: …, interval: …}`",
    ),
    ("health.active", &["port"], "probes use the port of the target: leave it out"),
    ("health.active", &["uri", "url", "endpoint"], "write `path`"),
    ("health.active", &["unhealthy_threshold", "failures", "unhealthy"], "write `fall`"),
    ("health.active", &["healthy_threshold", "successes", "healthy"], "write `rise`"),
    ("health.active", &["code", "codes", "statuses", "expect", "expected_status"], "write `status: 200-399`"),
    ("retry", &["on", "true", "conditions"], "write `when`: YAML 1.1 reads `on` as true"),
    ("retry", &["count", "retries", "max", "tries", "num_retries"], "write `attempts`, with the first one counted"),
    ("retry", &["status", "codes", "status_codes", "retry_on_status"], "write `statuses: 502-504`"),
    ("retry", &["timeout", "per_try_timeout"], "write `per_try`"),
    (
        "consumers.*",
        &["key", "keys", "api_key", "api_keys", "keyauth_credentials"],
        "write `credentials: [{api_key: {sha256: …}}]`",
    ),
    (
        "consumers.*",
        &["jwt", "basic", "password", "username", "token"],
        "write `credentials: [{basic: {username: …, hash: …}}]`",
    ),
    ("consumers.*", &["name", "id"], "a consumer has its name as its key, and `credentials`"),
    ("consumers.*", &["group", "acls", "acl", "tags"], "write `groups: […]`"),
    ("consumers.*", &["policy", "tier", "policies"], "write `plan: NAME`, one of `plans`"),
    ("^", &["versions", "api_versions", "versioning", "api"], "write `apis: {NAME: {versions: {v1: {}}}}`"),
    ("routes", &["versions", "api_version"], "write `api: NAME` and `version: v1`"),
    ("plans.*", &["limit", "rate", "requests"], "write `rate_limit: 100/s`, or a list of such"),
    ("^", &["policies", "tiers", "consumer_groups"], "write `plans: {NAME: {rate_limit: 100/s, quota: 1000/month}}`"),
    (
        "filters.*",
        &["enforce", "shadow", "dry_run", "report_only"],
        "write `enforce: false` beside the filter: at the depth of its key",
    ),
    (
        "filters",
        &["if", "condition", "only_if", "match", "unless"],
        "write `when: \"request.method == 'POST'\"` beside the filter",
    ),
    ("filters.*", &["when", "if"], "write `when: EXPRESSION` beside the filter: at the depth of its key"),
    ("filters", &["shadow", "dry_run", "mode", "report_only"], "write `enforce: false` beside the filter"),
    ("basic", &["password", "pass"], "write `hash`, which `portcullis hash` prints"),
    ("basic", &["name", "user"], "write `username`"),
    ("api_key", &["key", "keys"], "write `sha256`, or `value`, of a credential in `consumers`"),
    (
        "routes",
        &["host", "hosts", "path", "method", "methods", "headers", "query", "prefix", "uri", "location"],
        "write it below `match: {…}`",
    ),
    (
        "routes",
        &["upstream", "backend", "service", "proxy_pass", "to", "target", "forward", "cluster"],
        "write `action: {forward: NAME}`",
    ),
    ("routes", &["redirect"], "write `action: {redirect: {to: …}}`"),
    ("routes", &["respond", "response", "return"], "write `action: {respond: {…}}`"),
    ("routes", &["plugins", "middlewares", "middleware", "filter"], "write `filters: […]`"),
    (
        "routes",
        &["strip_prefix", "strip_path", "rewrite", "timeout"],
        "write `action: {forward: {upstream: …, strip_prefix: …}}`",
    ),
    (
        "routes",
        &["priority", "order", "weight"],
        "the most specific route is selected, wherever it stands; see `portcullis explain`",
    ),
    ("routes", &["listener"], "write `listeners: […]`"),
    (
        "match",
        &["uri", "url", "prefix", "location", "path_prefix", "regex"],
        "write `path`: /a is one path, /a/* a prefix, ~^/a an expression",
    ),
    ("match", &["ip", "address", "source", "cidr", "remote_addr"], "write `client`"),
    ("match", &["params", "args", "query_params"], "write `query`"),
    ("match", &["domain", "server_name", "authority"], "write `host`"),
    ("forward", &["url", "to", "target", "service", "backend", "cluster", "name"], "write `upstream: NAME`"),
    ("forward", &["path", "uri", "prefix"], "write `rewrite` or `strip_prefix`"),
    ("forward", &["retry", "retries"], "write `retry` in the upstream"),
    ("forward", &["preserve_host", "host_header"], "write `host: keep` or `host: target`"),
    ("respond", &["code", "status_code"], "write `status`"),
    ("respond", &["text", "content", "message", "data", "json"], "write `body`"),
    ("respond", &["content_type", "type", "content-type"], "write `headers: {content-type: …}`"),
    ("redirect", &["url", "location", "target", "uri"], "write `to`"),
    ("redirect", &["code", "status_code", "permanent"], "write `status: 301`, 302, 303, 307 or 308"),
    (
        "rate_limit",
        &["requests", "rate", "average", "max", "per", "minute", "second", "hour", "window", "period"],
        "write `limit: 100/s`, or /m, /h, /d",
    ),
    ("rate_limit", &["key", "limit_by", "per_client"], "write `by: address`, consumer, route or {header: NAME}"),
    ("rate_limit", &["policy", "fault_tolerant"], "counts are those of this process: leave it out"),
    ("rate_limit", &["nodelay", "delay"], "rate_limit never delays; `throttle: {limit: 10/s}` does"),
    ("rate_limit", &["windows", "limits"], "write `limit: [10/s, 1000/h]`"),
    ("rate_limit", &["month", "day", "year"], "write `limit: 1000/d`, or `quota: {limit: 1000000/month}`"),
    ("quota", &["hour", "day", "week", "month", "requests", "period"], "write `limit: 1000000/month`"),
    ("quota", &["timezone", "time_zone", "tz"], "write `utc_offset: \"+02:00\"`"),
    ("concurrency", &["max", "connections", "max_connections", "requests", "max_requests"], "write `limit: 10`"),
    ("throttle", &["rate", "average", "requests"], "write `limit: 10/s`"),
    ("throttle", &["delay", "timeout", "max_wait"], "write `max_delay: 5s`"),
    ("bandwidth", &["rate", "limit", "download", "limit_rate"], "write `response: 1MiB/s`"),
    ("bandwidth", &["upload"], "write `request: 1MiB/s`"),
    ("bandwidth", &["limit_rate_after", "after"], "write `burst: 64KiB`"),
    ("jwt", &["jwks_uri", "jwks_url", "jwks_file", "keys"], "write `jwks`"),
    ("jwt", &["key", "public_key_file", "cert"], "write `secret`, `public_key` or `jwks`"),
    ("jwt", &["iss"], "write `issuer`"),
    ("jwt", &["aud", "audiences"], "write `audience`"),
    ("cors", &["allow_origins", "allowed_origins", "allow_origin", "origin"], "write `origins`"),
    ("cors", &["allow_methods", "allowed_methods"], "write `methods`"),
    ("cors", &["allow_headers", "allowed_headers"], "write `headers`"),
    ("cors", &["allow_credentials"], "write `credentials`"),
    ("headers", &["set", "add", "remove"], "write it below `request` or `response`"),
    ("strip_fields", &["fields", "field", "paths", "body", "remove"], "write `response: [FIELD, …]`"),
    ("mask_fields", &["fields", "field", "paths"], "write `response: [FIELD, …]`"),
    ("transform", &["headers", "query", "json", "body", "path", "when"], "write it below `request` or `response`"),
    ("json", &["delete", "strip", "drop"], "write `remove: [FIELD, …]`"),
    ("json", &["replace"], "write `set: {FIELD: VALUE}`"),
    ("json", &["default", "defaults"], "write `add: {FIELD: VALUE}`"),
    ("rename_fields", &["fields", "field", "from", "to"], "write `response: {FIELD: NAME}`"),
    ("compress", &["algorithms", "encodings", "encoding", "formats"], "write `codings: [zstd, br, gzip]`"),
    ("compress", &["min_length", "threshold"], "write `min_size`"),
    ("admin", &["port", "listen", "bind", "host"], "write `address: 127.0.0.1:9901`"),
    ("admin", &["enabled", "enable", "disabled", "off"], "write `admin: none` for a gateway without an admin listener"),
    ("admin", &["socket", "unix", "path"], "write `address: unix:/run/portcullis/admin.sock`"),
    ("log", &["level"], "write `process: {level: …}`"),
    ("log.process", &["output", "file", "path"], "it is always on standard error"),
    ("^", &["metrics", "prometheus"], "the admin listener has them at /metrics"),
    ("log", &["output", "format", "file", "path"], "write it below `access: {…}`"),
    ("log.access", &["path"], "write `output: file` and `file`"),
    (
        "filters",
        &["request-validator", "request_validator", "request-validation", "json_schema", "json-schema", "schema"],
        "write `validate: {body: {schema: …}}`",
    ),
    ("filters", &["openapi", "oas-validation", "openapi3"], "a document stands on the route: `openapi: {file: …}`"),
    ("routes", &["swagger", "oas", "spec", "openapi_file"], "write `openapi: {file: …}`"),
    ("openapi", &["path", "document", "spec", "url"], "write `file`"),
    ("openapi", &["basePath", "prefix", "strip_prefix"], "write `base_path`"),
    ("openapi", &["validate", "validate_requests", "validate_request"], "write `requests: enforce`"),
    ("openapi", &["validate_responses", "validate_response", "response"], "write `responses: enforce`"),
    ("filters", &["key_auth", "key-auth", "apikey", "api_keys"], "write `api_key: {}`"),
    ("filters", &["basic_auth", "basic-auth", "auth_basic"], "write `basic: {}`"),
    ("filters", &["jwt_auth", "jwt-auth", "bearer"], "write `jwt: {…}`"),
    ("filters", &["openid-connect", "openid_connect", "oauth2", "login"], "write `oidc: {…}`"),
    ("filters", &["auth_request", "forwardAuth", "forward-auth", "ext_authz"], "write `forward_auth: {url: …}`"),
    ("filters", &["oauth2-introspection", "token_introspection"], "write `introspection: {url: …}`"),
    ("forward_auth", &["address", "uri"], "write `url`"),
    ("forward_auth", &["authResponseHeaders", "auth_response_headers", "response_headers"], "write `copy`"),
    ("forward_auth", &["authRequestHeaders", "request_headers"], "write `headers`"),
    ("introspection", &["endpoint", "introspection_endpoint", "introspection_url"], "write `url`"),
    ("oidc", &["redirect_uri", "redirect_url", "callback"], "write `redirect_path`, and `base_url` where it differs"),
    ("oidc", &["discovery", "well_known", "provider"], "write `issuer`"),
    (
        "filters",
        &["ratelimit", "rate-limiting", "rate-limit", "rate_limiting", "local_rate_limit", "limit_req", "limit"],
        "write `rate_limit: {limit: 100/s}`, or `throttle` where requests beyond it are to wait",
    ),
    (
        "filters",
        &["acl", "rbac", "authorization", "authorisation", "permissions", "opa"],
        "write `authorize: {groups: […]}`, or scopes, roles, claims, condition",
    ),
    (
        "filters",
        &["ip-restriction", "ip_restriction", "allow", "deny", "ip_allowlist", "ipAllowList", "whitelist", "geoip"],
        "write `authorize: {allow_addresses: […], deny_addresses: […]}`, or countries",
    ),
    ("filters", &["hmac-auth", "hmac_auth", "aws_sigv4", "sigv4"], "write `hmac: {}`"),
    ("filters", &["http_message_signatures", "http-signatures", "message_signature"], "write `http_signature: {}`"),
    ("authorize", &["allow", "ips", "whitelist", "source_ips", "allow_ips"], "write `allow_addresses: [10.0.0.0/8]`"),
    ("authorize", &["deny", "blacklist", "deny_ips"], "write `deny_addresses: [192.0.2.0/24]`"),
    ("authorize", &["when", "expression", "cel", "if", "rule", "policy", "conditions"], "write `condition: \"…\"`"),
    ("authorize", &["scope", "required_scopes"], "write `scopes` for any of several, `all_scopes` for every one"),
    ("authorize", &["group", "allowed_groups"], "write `groups`"),
    ("authorize", &["users", "principals", "consumer"], "write `consumers: […]`"),
    ("authorize", &["country", "geo", "geoip"], "write `countries: {database: PATH, allow: […], unknown: deny}`"),
    ("authorize", &["role"], "write `roles: {claim: roles, any: […]}`"),
    ("countries", &["db", "file", "path"], "write `database`"),
    ("hmac", &["access_key", "access_key_id", "key", "id"], "write `key_id`, of a credential in `consumers`"),
    ("hmac", &["region"], "write `regions: […]`"),
    ("hmac", &["service"], "write `services: […]`"),
    ("hmac", &["clock_skew", "skew"], "write `max_skew: 5m`"),
    ("http_signature", &["headers", "fields", "covered", "required"], "write `components: […]`"),
    ("http_signature", &["keyid", "id", "key"], "write `key_id`, of a credential in `consumers`"),
    (
        "filters",
        &["limit_conn", "in_flight_req", "inFlightReq", "max_connections", "admission_control", "limit-conn"],
        "write `concurrency: {limit: 10}`",
    ),
    (
        "filters",
        &["limit_rate", "bandwidth_limit", "bwlim", "limit_rate_after"],
        "write `bandwidth: {response: 1MiB/s}`",
    ),
    ("filters", &["quotas", "limit-count", "request_quota"], "write `quota: {limit: 1000000/month}`"),
    (
        "filters",
        &["waf", "modsecurity", "crs", "bot_detection"],
        "write `guard: {}`, first with `enforce: false` beside it",
    ),
    ("filters", &["xsrf", "csrf_protection"], "write `csrf: {}`"),
    ("filters", &["helmet", "secure_headers", "hsts"], "write `security_headers: {}`"),
    (
        "filters",
        &["client_certificate", "client-certificate", "client_cert", "tls_client_auth", "mtls-auth", "mtls_auth"],
        "write `mtls: {}`",
    ),
    ("mtls", &["ca", "crl", "mode"], "certificates are verified by the listener: write `tls: {client: {ca: …}}` there"),
    ("upstreams.*.tls", &["client_cert", "certificate", "proxy_ssl_certificate"], "write `cert` and `key`"),
    ("filters", &["gzip", "compression", "brotli", "encode"], "write `compress: {}`"),
    (
        "filters",
        &["request_headers", "response_headers", "header", "request-transformer", "response-transformer"],
        "write `headers: {request: …, response: …}`",
    ),
    ("filters", &["remove_fields", "delete_fields", "strip", "redact"], "write `strip_fields: {response: […]}`"),
    ("action", &["proxy", "proxy_pass", "upstream", "backend", "route", "reverse_proxy"], "write `forward: NAME`"),
    ("action", &["return", "static", "response", "reply", "direct_response"], "write `respond: {status: …, body: …}`"),
];

/// Hints for words that are none of the expected ones.
const WORDS: &[Hint] = &[
    // A mapping in a list of names.
    (
        "jwt.required_claims",
        &["{"],
        "claims with values are a mapping in place of the list: `required_claims: {tenant: [acme]}`",
    ),
    ("log.access.output", &["off", "false", "disabled"], "write none: YAML 1.1 reads off as false"),
    ("balance", &["ip_hash", "ip-hash", "source"], "write {hash: {by: address}}"),
    ("balance", &["hash", "consistent_hash", "maglev", "ring_hash"], "write {hash: {by: {header: NAME}}}"),
    ("balance", &["least_conn", "leastconn", "least_request", "least_requests"], "write least_connections"),
    (
        "balance",
        &["rr", "roundrobin", "weighted", "weighted_round_robin"],
        "write round_robin, which follows the weights",
    ),
    ("balance", &["p2c", "least_loaded"], "write power_of_two"),
    ("protocols", &["h2", "h2c", "http/2", "2"], "write http2"),
    ("protocols", &["h1", "http", "http/1.1", "1.1"], "write http1"),
    ("protocols", &["https", "tls"], "write http1 or http2, and tls beside protocols"),
    ("protocol", &["https", "tls"], "write tls: {} beside it"),
    ("protocol", &["h2", "h2c", "grpc", "http/2"], "write http2"),
    ("protocol", &["http", "h1", "http/1.1"], "write http1"),
    ("kind", &["https", "tls"], "write http, and tls beside it"),
    ("when", &["5xx", "502", "503", "504", "statuses", "status"], "write statuses: 502-504 beside it"),
    ("codings", &["brotli"], "write br"),
    ("codings", &["deflate"], "few clients read it without gzip: leave it out"),
    ("challenge", &["http-01", "http01", "http"], "write http_01"),
    ("challenge", &["tls-alpn-01", "tls-alpn", "alpn"], "write tls_alpn_01"),
    (
        "challenge",
        &["dns-01", "dns01", "dns_01", "dns"],
        "write http_01 or tls_alpn_01: names of the DNS are not changed",
    ),
    ("preset", &["old"], "write intermediate: what else is old is no longer safe"),
    ("mode", &["on", "true", "require", "require_and_verify", "mandatory"], "write required"),
    ("mode", &["request", "optional_no_ca", "want"], "write optional"),
    ("mode", &["off", "false", "disabled"], "write none"),
    ("min_version", &["TLSv1.2", "tls1.2", "TLS1.2"], "write \"1.2\""),
    ("min_version", &["TLSv1.3", "tls1.3", "TLS1.3"], "write \"1.3\""),
    ("by", &["ip", "client", "client_ip", "remote_addr"], "write address"),
    ("by", &["user", "key", "api_key", "credential"], "write consumer"),
    ("by", &["service", "path"], "write route"),
    ("algorithm", &["fixed_window", "sliding", "sliding_log"], "write sliding_window"),
    ("algorithm", &["token_bucket", "leaky_bucket"], "write gcra, which is one"),
];

/// Returns what to write instead of an unknown key below `place`.
pub fn for_key(place: &Trail<'_>, key: &str) -> Option<&'static str> {
    find(KEYS, place, key)
}

/// Returns what to write instead of a word at `place`.
pub fn for_word(place: &Trail<'_>, word: &str) -> Option<&'static str> {
    find(WORDS, place, word)
}

fn find(hints: &[Hint], place: &Trail<'_>, word: &str) -> Option<&'static str> {
    hints.iter().find(|(below, words, _)| words.contains(&word) && place.ends_with(below)).map(|(.., hint)| *hint)
}

/// Returns what to write instead of a bare number where a text of that format belongs.
pub fn for_number(format: &str, number: &str) -> Option<String> {
    Some(match format {
        "duration" => format!("write {number}s, or ms, m, h, d"),
        "size" => format!("write {number}B, or KiB, MiB, GiB"),
        "rate" => format!("write {number}/s, or /m, /h, /d"),
        "listen-address" => format!("write 0.0.0.0:{number}, or 127.0.0.1:{number} for this machine alone"),
        "address" => format!("write HOST:{number}"),
        "network" => "write an address such as 192.0.2.7".to_owned(),
        _ => return None,
    })
}

/// Returns what to write instead of a text where a number or a truth value belongs.
pub fn for_text(text: &str, is_bool: bool, is_number: bool) -> Option<String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "1" | "enabled" if is_bool => Some("write true".to_owned()),
        "no" | "off" | "false" | "0" | "disabled" if is_bool => Some("write false".to_owned()),
        number if is_number && number.parse::<f64>().is_ok() => {
            Some(format!("write {}, without quotes and leading zeros", number.trim_start_matches(['0', '+'])))
        }
        _ => None,
    }
}
