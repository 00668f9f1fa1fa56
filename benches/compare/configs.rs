//! The peers' configurations: what each one's manual says is the way, on one worker.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::peers::{Ground, MANY, Scenario};

impl Ground {
    pub fn keys() -> impl Iterator<Item = String> {
        (0..MANY).map(|n| format!("key-{n:04}-0123456789abcdef"))
    }

    pub fn portcullis(&self, scenario: Scenario, address: SocketAddr) -> String {
        let tls = match scenario.is_tls() {
            true => format!(
                ", tls: {{certificates: [{{cert: {}, key: {}}}]}}",
                self.path("cert.pem"),
                self.path("cert.key")
            ),
            false => String::new(),
        };
        let mut routes = String::new();
        let mut more = String::new();
        match scenario {
            Scenario::Routes => {
                for n in 0..MANY {
                    let _ = writeln!(routes, "  - {{name: r{n}, match: {{path: /kind{n}/*}}, action: {{forward: one}}}}");
                }
            }
            Scenario::ApiKey => {
                more.push_str("consumers:\n");
                for (n, key) in Self::keys().enumerate() {
                    let _ = writeln!(more, "  c{n}: {{credentials: [{{api_key: {{value: {key}}}}}]}}");
                }
                routes.push_str("  - {name: all, filters: [{api_key: {header: x-api-key}}], action: {forward: one}}\n");
            }
            Scenario::Jwt | Scenario::Full => {
                for n in 0..if scenario == Scenario::Full { MANY } else { 0 } {
                    let _ = writeln!(routes, "  - {{name: r{n}, match: {{path: '/repos/{{owner}}/{{repo}}/kind{n}'}}, action: {{forward: one}}}}");
                }
                let _ = writeln!(
                    routes,
                    "  - {{name: all, filters: [{{jwt: {{public_key: \"${{file:{}}}\"}}}}, {{rate_limit: {{limit: 10000000/s, by: consumer}}}}], action: {{forward: one}}}}",
                    self.path("pub.pem")
                );
            }
            Scenario::Headers => routes.push_str(
                "  - {name: all, filters: [{headers: {response: {set: {x-frame-options: DENY}, remove: [x-internal]}}}], action: {forward: one}}\n",
            ),
            Scenario::Strip => {
                routes.push_str("  - {name: all, filters: [{strip_fields: {response: [ssn, '**.internal']}}], action: {forward: one}}\n");
            }
            Scenario::Cached => {
                routes.push_str("  - {name: all, filters: [{cache: {ttl: {default: 1h}}}], action: {forward: one}}\n");
            }
            _ => routes.push_str("  - {name: all, action: {forward: one}}\n"),
        }
        let origin = if matches!(scenario, Scenario::Json | Scenario::Strip) { self.json } else { self.origin };
        format!(
            "process: {{threads: 1}}\nlog: {{access: {{output: none}}}}\nadmin: {{address: 127.0.0.1:0}}\nupstreams: {{one: {{targets: [\"{origin}\"]}}}}\nlisteners: [{{name: main, address: \"{address}\"{tls}, limits: {{connections: 20000}}}}]\n{more}routes:\n{routes}"
        )
    }

    pub fn nginx(&self, scenario: Scenario, address: SocketAddr) -> String {
        let tls = match scenario {
            Scenario::Http2 => " ssl http2",
            _ if scenario.is_tls() => " ssl",
            _ => "",
        };
        let pass = "proxy_pass http://one; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
        let mut http = String::new();
        let mut server = String::new();
        match scenario {
            Scenario::Routes => (0..MANY).for_each(|n| _ = writeln!(server, "location /kind{n}/ {{ {pass} }}")),
            Scenario::ApiKey => {
                http.push_str(
                    "map_hash_max_size 8192; map_hash_bucket_size 128; map $http_x_api_key $known { default 0;\n",
                );
                Self::keys().for_each(|key| _ = writeln!(http, "\"{key}\" 1;"));
                http.push_str("}\n");
                let _ = writeln!(server, "location / {{ if ($known = 0) {{ return 401; }} {pass} }}");
            }
            Scenario::Headers => {
                let _ = writeln!(
                    server,
                    "location / {{ add_header X-Frame-Options DENY; proxy_hide_header X-Internal; {pass} }}"
                );
            }
            Scenario::Cached => {
                let _ = writeln!(http, "proxy_cache_path {} keys_zone=one:10m;", self.path("cache"));
                let _ = writeln!(server, "location / {{ proxy_cache one; proxy_cache_valid 200 1h; {pass} }}");
            }
            _ => _ = writeln!(server, "location / {{ {pass} }}"),
        }
        let certificate = match scenario.is_tls() {
            true => format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
                self.path("cert.pem"),
                self.path("cert.key")
            ),
            false => String::new(),
        };
        format!(
            "daemon off; worker_processes 1; pid {}; events {{ worker_connections 32768; }} worker_rlimit_nofile 65536;
http {{ access_log off; keepalive_timeout 3600; keepalive_requests 1000000000; {http}
client_body_temp_path {}; proxy_temp_path {}; fastcgi_temp_path {}; uwsgi_temp_path {}; scgi_temp_path {};
upstream one {{ server {}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen {address}{tls}; {certificate}\n{server} }} }}",
            self.path("nginx.pid"),
            self.path("t1"),
            self.path("t2"),
            self.path("t3"),
            self.path("t4"),
            self.path("t5"),
            self.origin
        )
    }

    pub fn haproxy(&self, scenario: Scenario, address: SocketAddr) -> String {
        let tls = match scenario {
            Scenario::Http2 => format!(" ssl crt {} alpn h2", self.path("both.pem")),
            _ if scenario.is_tls() => format!(" ssl crt {} alpn http/1.1", self.path("both.pem")),
            _ => String::new(),
        };
        let mut rules = String::new();
        let mut backend = "default_backend one".to_owned();
        match scenario {
            Scenario::Routes => {
                let map: String = (0..MANY).map(|n| format!("/kind{n}/ one\n")).collect();
                backend = format!("use_backend %[path,map_beg({})]", self.write("routes.map", &map));
            }
            Scenario::ApiKey => {
                let keys: String = Self::keys().map(|key| key + "\n").collect();
                let file = self.write("keys.list", &keys);
                rules = format!("http-request deny deny_status 401 unless {{ req.hdr(x-api-key) -m str -f {file} }}\n");
            }
            Scenario::Jwt => {
                rules = format!(
                    "stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)
http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
http-request set-var(txn.sub) http_auth_bearer,jwt_payload_query('$.sub')
http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
http-request set-var(txn.now) date()
http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,\"{}\") -m int 1 }}
http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
http-request track-sc0 var(txn.sub)
http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 10000000 }}\n",
                    self.path("pub.pem")
                );
            }
            Scenario::Headers => {
                rules =
                    "http-response set-header x-frame-options DENY\nhttp-response del-header x-internal\n".to_owned();
            }
            _ => {}
        }
        format!(
            "global\nnbthread 1\nno strict-limits\nmaxconn 20000\ntune.ssl.default-dh-param 2048\ndefaults\nmode http\ntimeout connect 5s\ntimeout client 3600s\ntimeout server 60s\noption forwardfor\nhttp-reuse always\nfrontend main\nbind {address}{tls}\n{rules}{backend}\nbackend one\nserver one {} maxconn 10000\n",
            self.origin
        )
    }

    pub fn envoy(&self, scenario: Scenario, address: SocketAddr) -> String {
        let (host, port) = (self.origin.ip(), self.origin.port());
        let routes: String = match scenario {
            Scenario::Routes => (0..MANY).map(|n| format!("              - {{match: {{prefix: /kind{n}/}}, route: {{cluster: one}}}}\n")).collect(),
            Scenario::Headers => "              - {match: {prefix: /}, route: {cluster: one}, response_headers_to_add: [{header: {key: x-frame-options, value: DENY}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}], response_headers_to_remove: [x-internal]}\n".to_owned(),
            _ => "              - {match: {prefix: /}, route: {cluster: one}}\n".to_owned(),
        };
        let mut filters = String::new();
        match scenario {
            Scenario::ApiKey => {
                filters.push_str("          - name: envoy.filters.http.api_key_auth\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth\n              key_sources: [{header: x-api-key}]\n              credentials:\n");
                Self::keys()
                    .enumerate()
                    .for_each(|(n, key)| _ = writeln!(filters, "              - {{key: {key}, client: c{n}}}"));
            }
            Scenario::Jwt => {
                let jwks = format!(
                    "{{\\\"keys\\\":[{{\\\"kty\\\":\\\"RSA\\\",\\\"alg\\\":\\\"RS256\\\",\\\"n\\\":\\\"{}\\\",\\\"e\\\":\\\"AQAB\\\"}}]}}",
                    self.modulus
                );
                let _ = write!(
                    filters,
                    "          - name: envoy.filters.http.jwt_authn\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication\n              providers: {{own: {{local_jwks: {{inline_string: \"{jwks}\"}}, forward: true}}}}\n              rules: [{{match: {{prefix: /}}, requires: {{provider_name: own}}}}]\n          - name: envoy.filters.http.local_ratelimit\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit\n              stat_prefix: limit\n              token_bucket: {{max_tokens: 10000000, tokens_per_fill: 10000000, fill_interval: 1s}}\n              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}\n              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}\n"
                );
            }
            _ => {}
        }
        let alpn = if scenario == Scenario::Http2 { "h2" } else { "http/1.1" };
        let tls = match scenario.is_tls() {
            true => format!(
                "      transport_socket:\n        name: tls\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          common_tls_context: {{alpn_protocols: [{alpn}], tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]}}\n",
                self.path("cert.pem"),
                self.path("cert.key")
            ),
            false => String::new(),
        };
        format!(
            "static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          use_remote_address: true
          http_filters:
{filters}          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
{routes}{tls}
  clusters:
  - name: one
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    load_assignment: {{cluster_name: one, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}]}}]}}
overload_manager: {{resource_monitors: [{{name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 20000}}}}]}}\n",
            address.ip(), address.port()
        )
    }

    pub fn traefik(&self, scenario: Scenario) -> String {
        let tls = if scenario.is_tls() { ", tls: {}" } else { "" };
        let mut routers = String::new();
        let mut more = String::new();
        match scenario {
            Scenario::Routes => {
                (0..MANY).for_each(|n| {
                    _ = writeln!(routers, "    r{n}: {{rule: \"PathPrefix(`/kind{n}/`)\", service: one}}");
                });
            }
            Scenario::Headers => {
                routers.push_str("    all: {rule: \"PathPrefix(`/`)\", service: one, middlewares: [edit]}\n");
                more.push_str("  middlewares: {edit: {headers: {customResponseHeaders: {X-Frame-Options: DENY, X-Internal: \"\"}}}}\n");
            }
            _ => _ = writeln!(routers, "    all: {{rule: \"PathPrefix(`/`)\", service: one{tls}}}"),
        }
        let certificates = match scenario.is_tls() {
            true => format!(
                "tls: {{stores: {{default: {{defaultCertificate: {{certFile: {}, keyFile: {}}}}}}}}}\n",
                self.path("cert.pem"),
                self.path("cert.key")
            ),
            false => String::new(),
        };
        format!(
            "{certificates}http:\n  routers:\n{routers}{more}  services: {{one: {{loadBalancer: {{servers: [{{url: \"http://{}\"}}]}}}}}}\n",
            self.origin
        )
    }

    pub fn caddy(&self, scenario: Scenario, address: SocketAddr) -> String {
        let pass = |inner: &str| {
            format!(
                "reverse_proxy {} {{ transport http {{ keepalive_idle_conns_per_host 1024 }} {inner} }}",
                self.origin
            )
        };
        let body = match scenario {
            Scenario::Routes => (0..MANY).fold(String::new(), |mut all, n| {
                let _ = writeln!(all, "handle /kind{n}/* {{\nreverse_proxy {}\n}}", self.origin);
                all
            }),
            Scenario::Headers => pass("\nheader_down X-Frame-Options DENY\nheader_down -X-Internal\n")
                .replace("{ transport http { keepalive_idle_conns_per_host 1024 }", "{"),
            _ => pass("").replace("{ transport http { keepalive_idle_conns_per_host 1024 }  }", ""),
        };
        let (site, tls) = match scenario.is_tls() {
            true => (
                format!("https://localhost:{}", address.port()),
                format!("tls {} {}\n", self.path("cert.pem"), self.path("cert.key")),
            ),
            false => (format!("http://:{}", address.port()), String::new()),
        };
        let h1 =
            if matches!(scenario, Scenario::Tls | Scenario::Handshakes) { "servers {\nprotocols h1\n}\n" } else { "" };
        format!(
            "{{\nadmin off\nauto_https off\npersist_config off\n{h1}}}\n{site} {{\nbind {}\n{tls}{body}\n}}\n",
            address.ip()
        )
    }
}
