//! A real Prometheus: what it says of the metrics and of the alert rules, and whether each expression of the dashboard
//! and of the rules finds something in what it has scraped from a gateway.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, refused};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns a program of Debian's package, which is on the path or where `.ci/setup clients` unpacks it.
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(ROOT).join("target/prometheus/usr/bin").join(name);
    if unpacked.exists() { unpacked } else { PathBuf::from(name) }
}

/// Runs promtool with that input, and returns whether it is content, and what it said.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program("promtool"));
    command.args(arguments).current_dir(ROOT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("promtool cannot be run ({e}): run `.ci/setup clients`"));
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_accepts_the_alert_rules_and_their_tests() {
    let (fine, said) = promtool(&["check", "rules", "conf/observe/alerts.yaml"], "");
    assert!(fine && said.contains("SUCCESS"), "{said}");
    let (fine, said) = promtool(&["test", "rules", "conf/observe/alerts_test.yaml"], "");
    assert!(fine && said.contains("SUCCESS"), "{said}");
}

/// A gateway with a bit of everything that has metrics, and its targets.
struct Busy {
    gateway: Gateway,
    _targets: (Target, Target, socket2::Socket),
}

fn busy() -> Busy {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("a.pem", &made.cert.pem());
    write("a.key", &made.signing_key.serialize_pem());
    write(
        "keys.json",
        r#"{"keys": [{"kty": "oct", "k": "YS1zZWNyZXQtb2YtdGhlLXNlcnZpY2Utb2YtMzItYnl0ZXM", "alg": "HS256"}]}"#,
    );
    let (held, dead) = refused();
    let (good, bad) = (Target::echo("a"), Target::fixed(500, &[], b"no"));
    let yaml = format!(
        "listeners:
  - {{name: main, address: '127.0.0.1:0'}}
  - {{name: secure, address: '127.0.0.1:0', tls: {{certificates: [{{cert: a.pem, key: a.key}}]}}}}
upstreams:
  app: {{targets: ['{}', '{}'], breaker: {{failures: 1000}}, health: {{passive: {{failures: 3, max_ejected: 50}}}}}}
  dead: {{targets: ['{dead}'], retry: {{attempts: 2}}}}
routes:
  - {{name: dead, match: {{path: /dead}}, action: {{forward: dead}}}}
  - {{name: keyed, match: {{path: /keyed}}, filters: [{{jwt: {{jwks: 'file:keys.json', algorithms: [HS256]}}}}], action: {{forward: app}}}}
  - {{name: app, action: {{forward: app}}}}",
        good.address, bad.address
    );
    Busy { gateway: Gateway::start_in(folder, &yaml, &[]), _targets: (good, bad, held) }
}

impl Busy {
    fn traffic(&self) {
        for path in ["/", "/", "/dead", "/keyed"] {
            self.gateway.get(path);
        }
        // No handshake.
        let mut secure = TcpStream::connect(self.gateway.listeners[1].1).expect("a connection");
        secure.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    }
}

/// A Prometheus; it is killed with its handle.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn scraping(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}
rule_files: ['{ROOT}/conf/observe/alerts.yaml']
scrape_configs: [{{job_name: gateways, static_configs: [{{targets: ['{target}']}}]}}]"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
        let mut child = Command::new(program("prometheus"))
            .args(["--web.listen-address=127.0.0.1:0", "--storage.tsdb.path=data", "--config.file=prometheus.yml"])
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus");
        let (sender, addresses) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains("msg=\"Listening on\"")) {
                let address = line.split("address=").nth(1).and_then(|a| a.trim().parse::<SocketAddr>().ok());
                address.iter().for_each(|address| _ = sender.send(*address));
            }
        });
        let address = addresses.recv_timeout(std::time::Duration::from_secs(20)).expect("the address");
        Self { child, address, _folder: folder }
    }

    /// Returns the series that an expression has now, or what is wrong with it.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let encoded = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let answer = client::get(self.address, &format!("/api/v1/query?query={encoded}")).json();
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().unwrap_or("no answer").to_owned());
        }
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

/// The expressions of the dashboard, with its variables at their defaults.
fn of_the_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/conf/observe/grafana.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let annotations = list(&dashboard["annotations"]["list"]);
    let all = targets.chain(annotations).filter_map(|one| one["expr"].as_str().map(str::to_owned));
    let names = list(&dashboard["templating"]["list"]);
    all.map(|mut expression| {
        for name in names.iter().filter_map(|one| one["name"].as_str()) {
            expression = expression.replace(&format!("${name}"), ".*");
        }
        expression.replace("$__rate_interval", "1m")
    })
    .collect()
}

/// The expressions of the alert rules.
fn of_the_rules() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/conf/observe/alerts.yaml")).expect("the rules");
    let rules: Value = serde_yaml::from_str(&text).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    rules.iter().filter_map(|rule| rule["expr"].as_str().map(str::to_owned)).collect()
}

/// Returns an expression without its comparisons: its series, whether an alert fires or not.
fn without_comparisons(expression: &str) -> String {
    let comparison = regex::Regex::new(r" (==|[<>]) [0-9][0-9 .*]*").expect("an expression");
    comparison.replace_all(expression, " ").into_owned()
}

#[test]
fn every_expression_of_the_dashboard_and_of_the_rules_finds_series() {
    let busy = busy();
    let prometheus = Prometheus::scraping(busy.gateway.admin);
    busy.traffic();
    let mut expressions = of_the_dashboard();
    assert!(expressions.len() > 40, "{} expressions of the dashboard", expressions.len());
    expressions.extend(of_the_rules());
    let mut missing: Vec<String> = expressions.iter().map(|one| without_comparisons(one)).collect();
    // Counters that begin with an event need a second scrape after it, and rates two of them.
    eventually("each expression has series", || {
        busy.traffic();
        missing.retain(|expression| {
            let series = prometheus.query(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
            series.is_empty()
        });
        if !missing.is_empty() {
            eprintln!("still missing: {missing:#?}");
        }
        missing.is_empty()
    });
    let (fine, said) = promtool(&["check", "metrics"], &client::get(busy.gateway.admin, "/metrics").text());
    assert!(fine && said.is_empty(), "{said}");
}
