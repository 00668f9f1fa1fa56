//! The peers and their configurations: what each one's manual says is the way, on one worker, without logs.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Bare,
    Portcullis,
    Nginx,
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
}

pub const PEERS: [Peer; 7] = [Peer::Bare, Peer::Portcullis, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Traefik, Peer::Caddy];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    Plain,
    Tls,
    Handshakes,
    Http2,
    Routes,
    ApiKey,
    Jwt,
    Headers,
    /// JWT, rate limit and 1,000 routes.
    Full,
    /// 1 KiB of JSON as it comes, and without its sensitive fields.
    Json,
    Strip,
}

pub const SCENARIOS: [Scenario; 11] = [
    Scenario::Plain,
    Scenario::Tls,
    Scenario::Handshakes,
    Scenario::Http2,
    Scenario::Routes,
    Scenario::ApiKey,
    Scenario::Jwt,
    Scenario::Headers,
    Scenario::Full,
    Scenario::Json,
    Scenario::Strip,
];

/// How many routes, and how many API keys, there are where there are many.
pub const MANY: usize = 1_000;

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare Pingora",
            Self::Portcullis => "Portcullis",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Caddy => "Caddy",
        }
    }

    /// Whether it has what the scenario needs, without a plug-in.
    pub fn can(self, scenario: Scenario) -> bool {
        match self {
            Self::Portcullis => true,
            _ if matches!(scenario, Scenario::Full | Scenario::Json | Scenario::Strip) => false,
            Self::Envoy | Self::Haproxy => true,
            Self::Bare => scenario == Scenario::Plain,
            Self::Nginx => scenario != Scenario::Jwt,
            Self::Traefik | Self::Caddy => !matches!(scenario, Scenario::Jwt | Scenario::ApiKey),
        }
    }
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain HTTP/1.1",
            Self::Tls => "TLS keep-alive",
            Self::Handshakes => "TLS handshakes",
            Self::Http2 => "HTTP/2 over TLS",
            Self::Routes => "1,000 routes",
            Self::ApiKey => "API key",
            Self::Jwt => "JWT + rate limit",
            Self::Headers => "header edits",
            Self::Full => "JWT, limit, 1,000 routes",
            Self::Json => "1 KiB of JSON",
            Self::Strip => "1 KiB of JSON, stripped",
        }
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Handshakes | Self::Http2)
    }
}

/// Where everything is.
pub struct Ground {
    pub folder: PathBuf,
    pub origin: SocketAddr,
    /// Answers with JSON.
    pub json: SocketAddr,
    /// Where the peers' binaries are; else they are looked for in the path.
    pub binaries: PathBuf,
    pub portcullis: PathBuf,
    pub bare: PathBuf,
    /// The modulus of the key that signs tokens, as a JWKS has it.
    pub modulus: String,
}

/// A peer at work; it ends with this.
pub struct Running {
    pub child: Child,
    pub address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..200 {
            if self.child.try_wait().is_ok_and(|s| s.is_some()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Nanoseconds of CPU that it and its children have used.
    pub fn cpu(&self) -> u64 {
        self.processes().iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Kibibytes of memory that are its own.
    pub fn memory(&self) -> u64 {
        self.processes().iter().map(|pid| memory_of(*pid)).sum()
    }

    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let parent = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let all = std::fs::read_dir("/proc").expect("proc").flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        all.filter(|pid| *pid == own || parent(*pid) == Some(own)).collect()
    }
}

pub fn cpu_of(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let time = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(time).sum()
}

pub fn memory_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

impl Ground {
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn binary(&self, name: &str) -> PathBuf {
        let places = [self.binaries.join(name), PathBuf::from("/usr/sbin").join(name)];
        places.into_iter().find(|place| place.exists()).unwrap_or_else(|| PathBuf::from(name))
    }

    /// Starts a peer on the first core and waits until it accepts.
    pub fn start(&self, peer: Peer, scenario: Scenario) -> Running {
        let address = free();
        let (binary, arguments) = self.prepare(peer, scenario, address);
        let log = std::fs::File::create(self.folder.join(format!("{peer:?}-{scenario:?}.log"))).expect("a log");
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).args(arguments).env("GOMAXPROCS", "1").env("XDG_DATA_HOME", &self.folder);
        command.env("XDG_CONFIG_HOME", &self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the peer");
        let running = Running { child, address };
        for _ in 0..500 {
            if std::net::TcpStream::connect(address).is_ok() {
                return running;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.folder.join(format!("{peer:?}-{scenario:?}.log"))).unwrap_or_default();
        panic!("{} does not start for {scenario:?}: {log}", peer.name());
    }

    fn prepare(&self, peer: Peer, scenario: Scenario, address: SocketAddr) -> (PathBuf, Vec<String>) {
        let arguments = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect();
        match peer {
            Peer::Bare => (self.bare.clone(), arguments(&[&address.to_string(), &self.origin.to_string()])),
            Peer::Portcullis => {
                let config = self.write("portcullis.yaml", &self.portcullis(scenario, address));
                (self.portcullis.clone(), arguments(&["run", "-q", "-c", &config]))
            }
            Peer::Nginx => {
                let config = self.write("nginx.conf", &self.nginx(scenario, address));
                (self.binary("nginx"), arguments(&["-c", &config, "-p", &self.path(""), "-e", &self.path("nginx.log")]))
            }
            Peer::Haproxy => {
                let config = self.write("haproxy.cfg", &self.haproxy(scenario, address));
                (self.binary("haproxy"), arguments(&["-db", "-f", &config]))
            }
            Peer::Envoy => {
                let config = self.write("envoy.yaml", &self.envoy(scenario, address));
                let flags = ["-c", &config, "--concurrency", "1", "-l", "error", "--disable-hot-restart"];
                (self.binary("envoy"), arguments(&flags))
            }
            Peer::Traefik => {
                let dynamic = self.write("traefik-dynamic.yaml", &self.traefik(scenario));
                let config = format!(
                    "global: {{sendAnonymousUsage: false, checkNewVersion: false}}\nlog: {{level: ERROR}}\nentryPoints: {{main: {{address: \"{address}\"}}}}\nproviders: {{file: {{filename: {dynamic}}}}}\nserversTransport: {{maxIdleConnsPerHost: 1024}}"
                );
                let config = self.write("traefik.yaml", &config);
                (self.binary("traefik"), arguments(&["--configfile", &config]))
            }
            Peer::Caddy => {
                let config = self.write("Caddyfile", &self.caddy(scenario, address));
                (self.binary("caddy"), arguments(&["run", "--adapter", "caddyfile", "--config", &config]))
            }
        }
    }

    pub fn keys() -> impl Iterator<Item = String> {
        (0..MANY).map(|n| format!("key-{n:04}-0123456789abcdef"))
    }

    pub fn portcullis(&self, scenario: Scenario, address: SocketAddr) -> String {
        let tls = match scenario.is_tls() {
            true => format!(", tls: {{certificates: [{{cert: {}, key: {}}}]}}", self.path("cert.pem"), self.path("cert.key")),
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
            _ => routes.push_str("  - {name: all, action: {forward: one}}\n"),
        }
        let origin = if matches!(scenario, Scenario::Json | Scenario::Strip) { self.json } else { self.origin };
        format!(
            "process: {{threads: 1}}\nlog: {{access: {{output: off}}}}\nadmin: {{address: 127.0.0.1:0}}\nupstreams: {{one: {{targets: [\"{origin}\"]}}}}\nlisteners: [{{name: main, address: \"{address}\"{tls}, limits: {{connections: 20000}}}}]\n{more}routes:\n{routes}"
        )
    }

    fn nginx(&self, scenario: Scenario, address: SocketAddr) -> String {
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
                http.push_str("map_hash_max_size 8192; map_hash_bucket_size 128; map $http_x_api_key $known { default 0;\n");
                Self::keys().for_each(|key| _ = writeln!(http, "\"{key}\" 1;"));
                http.push_str("}\n");
                let _ = writeln!(server, "location / {{ if ($known = 0) {{ return 401; }} {pass} }}");
            }
            Scenario::Headers => {
                let _ = writeln!(server, "location / {{ add_header X-Frame-Options DENY; proxy_hide_header X-Internal; {pass} }}");
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

    fn haproxy(&self, scenario: Scenario, address: SocketAddr) -> String {
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
            Scenario::Headers => rules = "http-response set-header x-frame-options DENY\nhttp-response del-header x-internal\n".to_owned(),
            _ => {}
        }
        format!(
            "global\nnbthread 1\nno strict-limits\nmaxconn 20000\ntune.ssl.default-dh-param 2048\ndefaults\nmode http\ntimeout connect 5s\ntimeout client 3600s\ntimeout server 60s\noption forwardfor\nhttp-reuse always\nfrontend main\nbind {address}{tls}\n{rules}{backend}\nbackend one\nserver one {} maxconn 10000\n",
            self.origin
        )
    }

    fn envoy(&self, scenario: Scenario, address: SocketAddr) -> String {
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
                Self::keys().enumerate().for_each(|(n, key)| _ = writeln!(filters, "              - {{key: {key}, client: c{n}}}"));
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

    fn traefik(&self, scenario: Scenario) -> String {
        let tls = if scenario.is_tls() { ", tls: {}" } else { "" };
        let mut routers = String::new();
        let mut more = String::new();
        match scenario {
            Scenario::Routes => {
                (0..MANY).for_each(|n| _ = writeln!(routers, "    r{n}: {{rule: \"PathPrefix(`/kind{n}/`)\", service: one}}"));
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

    fn caddy(&self, scenario: Scenario, address: SocketAddr) -> String {
        let pass =
            |inner: &str| format!("reverse_proxy {} {{ transport http {{ keepalive_idle_conns_per_host 1024 }} {inner} }}", self.origin);
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
            true => (format!("https://localhost:{}", address.port()), format!("tls {} {}\n", self.path("cert.pem"), self.path("cert.key"))),
            false => (format!("http://:{}", address.port()), String::new()),
        };
        let h1 = if matches!(scenario, Scenario::Tls | Scenario::Handshakes) { "servers {\nprotocols h1\n}\n" } else { "" };
        format!("{{\nadmin off\nauto_https off\npersist_config off\n{h1}}}\n{site} {{\nbind {}\n{tls}{body}\n}}\n", address.ip())
    }
}
