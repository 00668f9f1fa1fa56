//! Filters of a listener, of sets and of all routes: where they hold, and how operators see them.

use super::harness::client::{self, Connection, head};
use super::harness::gateway::{Gateway, run};

const YAML: &str = "listeners:
  - {name: public, address: '127.0.0.1:0', filters: [{set: public}]}
  - {name: internal, address: '127.0.0.1:0'}
  - {name: partners, address: '127.0.0.1:0', filters: [{api_key: {header: x-partner}}]}
consumers: {one: {credentials: [{api_key: {value: key-of-one}}]}}
filter_sets:
  public:
    - api_key: {}
    - cors: {origins: ['https://app.example']}
    - rate_limit: {limit: 3/h, by: address}
defaults: {filters: [{headers: {response: {set: {x-all: 'yes'}}}}]}
routes:
  - {name: a, match: {path: /a}, action: {respond: {body: a}}}
  - {name: b, match: {path: /b}, listeners: [public, internal], without: [rate_limit, headers], action: {respond: {body: b}}}
  - {name: c, match: {path: /c}, listeners: [public], without: [public], action: {respond: {body: c}}}
";

#[test]
fn filters_of_a_listener_hold_for_its_requests_alone() {
    let gateway = Gateway::start(YAML);
    let [public, internal, partners] = [0, 1, 2].map(|place| gateway.listeners[place].1);
    let status = |address, path: &str, header: &str| {
        let mut connection = Connection::open(address);
        connection.ask(head("GET", path, &[(header, "key-of-one")])).status
    };
    assert_eq!([public, internal, partners].map(|address| status(address, "/a", "x-none")), [401, 200, 401]);
    assert_eq!([public, internal, partners].map(|address| status(address, "/a", "x-api-key")), [200, 200, 401]);
    assert_eq!([public, partners].map(|address| status(address, "/a", "x-partner")), [401, 200]);
    // Without the limit of the listener, and with its authentication.
    assert_eq!((0..5).map(|_| status(public, "/b", "x-api-key")).collect::<Vec<_>>(), [200; 5]);
    assert_eq!((status(public, "/b", "x-none"), status(internal, "/b", "x-none")), (401, 200));
    assert_eq!(status(public, "/c", "x-none"), 200);
    assert_eq!((0..3).map(|_| status(public, "/a", "x-api-key")).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!((0..5).map(|_| status(internal, "/a", "x-none")).collect::<Vec<_>>(), [200; 5]);
    // A preflight is for the rules of its listener.
    let preflight = |address| {
        let asked = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
        client::request(address, "OPTIONS", "/a", &asked)
    };
    assert_eq!(preflight(public).header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(preflight(internal).header("access-control-allow-origin"), None);
    // A reload changes them for requests that come later, also on connections that are there.
    let mut connection = Connection::open(internal);
    assert_eq!(connection.ask(head("GET", "/a", &[])).status, 200);
    gateway.write_config(&YAML.replace(
        "{name: internal, address: '127.0.0.1:0'}",
        "{name: internal, address: '127.0.0.1:0', filters: [{api_key: {}}]}",
    ));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(connection.ask(head("GET", "/a", &[])).status, 401);
    // What was counted is counted still.
    assert_eq!(status(public, "/a", "x-api-key"), 429);
}

#[test]
fn the_filters_of_a_route_are_listed_with_their_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), YAML).expect("written");
    let (code, out, told) = run(&["check", "-c", "c.yaml", "--routes"], Some(folder.path()));
    assert_eq!((code, told.as_str()), (0, ""));
    let expected = "route a, on the listener public
  cors (cross-origin rules), from the listener public, from the set public
  api_key (who is it?), from the listener public, from the set public
  rate_limit (within the limits?), from the listener public, from the set public
  headers (edits), from defaults
route a, on the listener internal
  headers (edits), from defaults
route a, on the listener partners
  api_key (who is it?), from the listener partners
  headers (edits), from defaults
route b, on the listener public
  cors (cross-origin rules), from the listener public, from the set public
  api_key (who is it?), from the listener public, from the set public
route b, on the listener internal
route c
  headers (edits), from defaults
";
    assert!(out.ends_with(expected), "{out}");
    let (code, out, _) = run(&["explain", "-c", "c.yaml", "--listener", "partners", "GET", "/a"], Some(folder.path()));
    assert!(code == 0 && out.contains("  filter: api_key (who is it?), from the listener partners\n"), "{out}");
}

#[test]
fn a_set_that_nothing_names_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = YAML.replace("defaults:", "  idle: [{headers: {}}]\ndefaults:");
    std::fs::write(folder.path().join("c.yaml"), yaml).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert_eq!((code, told.as_str()), (0, "warning: c.yaml:11:3: filter_sets.idle: nothing uses this filter set\n"));
}

#[test]
fn a_difference_shows_what_runs_in_which_route() {
    let gateway = Gateway::start(YAML);
    let changed = YAML.replace("defaults: {filters: [", "defaults: {filters: [{cors: {origins: ['*']}}, ");
    gateway.write_config(&changed);
    let config = gateway.config().display().to_string();
    let (code, out, _) = run(&["diff", "-c", &config, "--admin", &gateway.admin.to_string()], None);
    assert_eq!(code, 0);
    let public = "api_key from the listener public from the set public";
    for line in [
        "~ filters of the route a on the listener internal: headers from defaults -> cors from defaults, headers from defaults".to_owned(),
        "~ filters of the route c: headers from defaults -> cors from defaults, headers from defaults".to_owned(),
    ] {
        assert!(out.lines().any(|known| known == line), "{line} is not in {out}");
    }
    // There the listener has its own.
    assert!(!out.contains("route a on the listener public") && !out.contains(public), "{out}");
    let many: String =
        (0..40).map(|n| format!("  - {{name: r{n}, match: {{path: /r{n}}}, action: {{respond: {{}}}}}}\n")).collect();
    gateway.write_config(&format!("{YAML}{many}"));
    assert_eq!(gateway.reload().status, 200);
    gateway.write_config(&format!("{changed}{many}"));
    let (_, out, _) = run(&["diff", "-c", &config, "--admin", &gateway.admin.to_string()], None);
    assert_eq!(out.lines().filter(|line| line.starts_with("~ filters of the route ")).count(), 20, "{out}");
    assert!(out.contains("\n~ filters of ") && out.contains(" further routes: (not shown) -> (not shown)\n"), "{out}");
}
