//! The formats of the access log, its fields, and which requests it has.

use super::harness::eventually;
use super::harness::gateway::{Gateway, run};

const ROUTES: &str = "routes:\n\
    - {name: hello, match: {path: /hello}, action: {respond: {body: hi}}}\n\
    - {name: missing, match: {path: /missing}, action: {respond: {status: 404}}}\n";

fn lines(gateway: &Gateway, count: usize) -> Vec<String> {
    let path = gateway.folder.path().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the access log has its lines", || read().lines().count() >= count);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn fields_are_chosen_and_added() {
    let log = "log: {access: {output: file, file: access.log, fields: [method, path, status], \
               add: {tenant: '{header.x-tenant|none}', port: '{listener.port}'}}}\n";
    let gateway = Gateway::start(&format!("{log}{ROUTES}"));
    gateway.request("GET", "/hello?secret=x", &[("x-tenant", "a\"b")]);
    let port = gateway.address().port();
    let wanted = format!(r#"{{"method":"GET","path":"/hello","status":200,"port":"{port}","tenant":"a\"b"}}"#);
    assert_eq!(lines(&gateway, 1), [wanted]);
    // A reload takes another format, for the requests that begin after it.
    let text = "log: {access: {output: file, file: access.log, format: combined}}\n";
    gateway.write_config(&format!("{text}{ROUTES}"));
    assert_eq!(gateway.reload().status, 200);
    gateway.request("GET", "/missing?token=x", &[("user-agent", "ua"), ("referer", "https://a.example/?key=x")]);
    let last = lines(&gateway, 2).pop().expect("a line");
    assert!(last.starts_with("127.0.0.1 - - [") && !last.contains("=x"), "{last}");
    let end = r#" +0000] "GET /missing?token=*** HTTP/1.1" 404 0 "https://a.example/?key=***" "ua""#;
    assert!(last.ends_with(end), "{last}");
}

#[test]
fn only_what_is_asked_for_is_logged() {
    let log = "log: {access: {output: file, file: access.log, when: {status: 4xx, slower_than: 1h}}}\n";
    let gateway = Gateway::start(&format!("{log}{ROUTES}"));
    for _ in 0..20 {
        gateway.get("/hello");
    }
    gateway.get("/missing");
    let lines = lines(&gateway, 1);
    assert!(lines.len() == 1 && lines[0].contains("/missing"), "{lines:?}");
}

#[test]
fn what_cannot_be_logged_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    for (log, wanted) in [
        ("{fields: [methd]}", "did you mean \"method\""),
        ("{format: text, fields: [method]}", "only lines in JSON"),
        ("{format: combined, add: {a: '{client}'}}", "no further fields"),
        ("{add: {a: '{header.authorization}'}}", "may be a credential"),
        ("{add: {a: '{cookie.session}'}}", "may be a credential"),
        ("{add: {a: '{clinet}'}}", "did you mean \"client\""),
        ("{add: {status: '{client}'}}", "already"),
        ("{when: {}}", "nothing would be logged"),
    ] {
        let yaml = format!(
            "log: {{access: {log}}}\nlisteners: [{{name: a, address: 127.0.0.1:8080}}]\n\
             routes: [{{name: a, action: {{respond: {{}}}}}}]\n"
        );
        std::fs::write(folder.path().join("c.yaml"), yaml).expect("written");
        let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
        assert!(code == 2 && told.contains(wanted), "{log}: {told}");
    }
}
