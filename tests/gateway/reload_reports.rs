//! Operators are told what a reload would change, and how it ended.

use super::harness::client;
use super::harness::gateway::{Gateway, run};
use super::harness::target::Target;
use super::reload::{free, operate};

#[test]
fn a_missing_file_is_named() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {body: a}}}]");
    let (file, away) = (gateway.config(), gateway.config().with_extension("away"));
    std::fs::rename(&file, &away).expect("moved");
    assert_eq!(gateway.reload().status, 422);
    let ready = client::get(gateway.admin, "/readyz").json();
    let name = file.display().to_string();
    assert_eq!(ready["last_reload"]["files"], serde_json::json!([name]));
    assert!(gateway.metric(&format!("portcullis_config_bad_file{{file=\"{name}\"}}")) > 0.5);
    std::fs::rename(&away, &file).expect("moved");
    assert_eq!(gateway.reload().status, 200);
}

#[test]
fn what_is_read_at_the_start_only_is_told() {
    let route = "routes: [{name: all, action: {respond: {body: a}}}]";
    let gateway = Gateway::start(route);
    gateway.write_config(&format!("{route}\nprocess: {{threads: 7, upgrade_socket: other.sock}}"));
    let (_, changes, _) = operate(&gateway, &["diff"]);
    assert!(changes.contains("7 (from the next start or upgrade)\n"), "{changes}");
    assert!(
        changes.contains("other.sock (from the next start or upgrade, which until then SIGUSR2 asks for)\n"),
        "{changes}"
    );
    let notes = gateway.reload().json()["notes"].to_string();
    assert!(
        notes.contains(
            "process.threads is read at the start only: the new value takes effect at the next start or upgrade"
        ),
        "{notes}"
    );
    assert!(
        notes.contains("process.upgrade_socket is read at the start only: the new value takes effect at the next start or upgrade, which"),
        "{notes}"
    );
    assert!(!notes.contains("admin.address"), "{notes}");
    // That it was loaded changes nothing about it; to take it back does.
    let (_, changes, _) = operate(&gateway, &["diff"]);
    assert!(changes.contains("7 (from the next start or upgrade)\n"), "{changes}");
    // And neither does another word for what is in use.
    gateway.write_config(&format!("{route}\nprocess: {{threads: 2}}\nadmin: {{address: \"127.0.0.1:0\"}}"));
    assert!(!operate(&gateway, &["diff"]).1.contains("from the next"));
    assert_eq!(gateway.reload().json()["notes"].to_string(), "[]");
}

#[test]
fn operators_see_what_would_change_and_reload() {
    let address = free();
    let yaml = |token: &str, action: &str, more: &str| {
        format!(
            "routes: [{{name: all, action: {{{action}}}}}{more}]\nadmin: {{address: 127.0.0.1:0, token: {token}}}\nlisteners: [{{name: main, address: \"{address}\"}}]"
        )
    };
    let gateway = Gateway::start(&yaml("first-token", "respond: {body: one}", ""));
    let (code, out, error) = operate(&gateway, &["diff"]);
    assert_eq!((code, out.as_str()), (0, "nothing would change\n"), "{error}");
    gateway.write_config(&yaml(
        "first-token",
        "respond: {body: two}",
        ", {name: b, match: {path: /b}, action: {respond: {}}}",
    ));
    let (code, out, _) = operate(&gateway, &["diff"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "~ routes.all.action.respond.body: one -> two\n+ routes.b: 3 keys\n2 changes\n")
    );
    let (code, out, _) = operate(&gateway, &["check", "--against-running"]);
    assert_eq!(code, 0);
    assert!(out.contains("fine: 1 listener,") && out.contains("+ routes.b"), "{out}");
    // An address that somebody else has is found without trying it in earnest.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|a| (taken, a)).expect("an address");
    let both = yaml("first-token", "respond: {body: two}", "")
        .replace("listeners: [", &format!("listeners: [{{name: taken, address: \"{}\"}}, ", taken.1));
    gateway.write_config(&both);
    let (code, out, error) = operate(&gateway, &["check", "--against-running"]);
    assert_eq!((code, out.as_str()), (2, ""), "what cannot be served is not called fine");
    assert!(
        error.contains("portcullis.yaml:3:") && error.contains("listeners[0].address: cannot listen on"),
        "{error}"
    );
    let (code, _, error) = operate(&gateway, &["reload"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot listen on") && error.contains("the configuration in use stays"), "{error}");
    assert_eq!(gateway.get("/").text(), "one");
    gateway.write_config(&yaml("first-token", "respond: {body: two}", ""));
    let (code, out, error) = operate(&gateway, &["reload"]);
    assert!(code == 0 && out.starts_with("reloaded /") && out.ends_with("portcullis.yaml\n"), "{out}{error}");
    assert_eq!(gateway.get("/").text(), "two");
    // Another token is a change, of which nobody is shown more; but it is not the key to the door.
    gateway.write_config(&yaml("second-token", "respond: {body: two}", ""));
    let (code, _, error) = operate(&gateway, &["diff"]);
    assert_eq!(code, 1);
    assert!(error.contains("is not that of the running gateway") && !error.contains("second-token"), "{error}");
    drop(taken);
    let (code, _, error) = run(&["reload", "-c", "conf/examples/api-gateway.yaml", "--admin", "127.0.0.1:1"], None);
    assert_eq!(code, 1, "{error}");
}

#[test]
fn why_a_gateway_does_not_compare_is_told() {
    let busy = Target::fixed(503, &[], b"{\"error\": \"other comparisons are under way: try again\"}");
    let config = ["-c", "conf/examples/api-gateway.yaml", "--admin", &busy.address.to_string()];
    for command in [&["diff"][..], &["check", "--against-running"]] {
        let (code, out, error) = run(&[command, &config].concat(), None);
        assert_eq!(
            (code, out.as_str(), error.as_str()),
            (1, "", "portcullis: other comparisons are under way: try again\n")
        );
    }
}

#[test]
fn a_refusal_is_heard_however_much_was_to_be_sent() {
    let yaml = |token: &str, routes: usize| {
        let routes: Vec<String> = (0..routes)
            .map(|n| format!("{{name: route{n}, match: {{path: /{n}}}, action: {{respond: {{}}}}}}"))
            .collect();
        format!("routes: [{}]\nadmin: {{address: 127.0.0.1:0, token: {token}}}", routes.join(", "))
    };
    let gateway = Gateway::start(&yaml("first-token", 1));
    gateway.write_config(&yaml("second-token", 20_000));
    for _ in 0..3 {
        let (code, _, error) = operate(&gateway, &["diff"]);
        assert!(code == 1 && error.contains("the admin token of this configuration is not that"), "{error}");
    }
}

#[test]
fn that_the_gateway_reads_another_file_is_told() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {body: a}}}]");
    let (config, admin) = (gateway.folder.path().join("other.yaml"), gateway.admin.to_string());
    std::fs::copy(gateway.config(), &config).expect("a copy");
    let other = ["-c", &config.display().to_string(), "--admin", &admin];
    for command in [&["diff"][..], &["check", "--against-running"]] {
        let (code, _, error) = run(&[command, &other].concat(), None);
        assert_eq!(code, 0, "{error}");
        assert!(
            error.contains("the gateway reads another file than") && error.trim_end().ends_with("portcullis.yaml"),
            "{error}"
        );
    }
}
