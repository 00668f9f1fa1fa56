//! The admin listener and the commands that call it: where it is, whom it serves, and what it shows.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete, run};
use super::harness::target::{Target, refused};
use super::upgrade::{PROCESS, upgrade};

const ROUTE: &str = "routes: [{name: all, action: {respond: {body: one}}}]\n";

/// Sends a GET over a Unix socket, and returns the response as text.
fn get_over(socket: &Path, path: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Runs the binary with that environment: exit code, standard output, standard error.
fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(BINARY).args(arguments).envs(variables.iter().copied()).output().expect("the binary");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_gateway_without_an_admin_listener_serves_and_reloads() {
    let gateway = Gateway::start(&format!("{ROUTE}admin: none"));
    assert!(gateway.log().contains("there is no admin listener"), "{}", gateway.log());
    assert_eq!(gateway.get("/").text(), "one");
    let config = gateway.config().display().to_string();
    let (code, _, error) = run(&["reload", "-c", &config], None);
    assert!(code == 1 && error.contains("admin: none") && error.contains("SIGHUP"), "{error}");
    gateway.write_config(&format!("{}admin: {{address: none}}", ROUTE.replace("one", "two")));
    gateway.signal("-HUP");
    eventually("the reload", || gateway.get("/").text() == "two");
}

#[test]
fn other_words_for_no_admin_listener_are_rejected_with_the_right_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.yaml");
    for word in ["off", "false", "no", "disabled", "{address: off}"] {
        std::fs::write(&file, complete(&format!("{ROUTE}admin: {word}"))).expect("written");
        let (code, _, error) = run(&["check", "-c", &file.display().to_string()], None);
        assert!(
            code == 2 && error.contains("expected none for a gateway without an admin listener"),
            "{word}: {error}"
        );
    }
    std::fs::write(&file, complete(&format!("{ROUTE}admin: {{enabled: false}}"))).expect("written");
    let (code, _, error) = run(&["check", "-c", &file.display().to_string()], None);
    assert!(code == 2 && error.contains("write `admin: none`"), "{error}");
    std::fs::write(&file, complete(&format!("{ROUTE}admin: {{address: none, token: x}}"))).expect("written");
    let (code, _, error) = run(&["check", "-c", &file.display().to_string()], None);
    assert!(code == 2 && error.contains("admin.token: without an admin listener"), "{error}");
}

#[test]
fn a_unix_socket_is_for_its_user_and_goes_with_the_gateway() {
    let mut gateway = Gateway::start(&format!("{ROUTE}admin: unix:admin.sock"));
    let socket = gateway.folder.path().join("admin.sock");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Without a token too: no web page reaches it.
    assert!(get_over(&socket, "/process").expect("a response").contains("\"pid\":"));
    gateway.write_config(&format!("{}admin: unix:admin.sock", ROUTE.replace("one", "two")));
    let config = gateway.config().display().to_string();
    let (code, out, error) = run(&["reload", "-c", &config], None);
    assert!(code == 0 && out.starts_with("reloaded /"), "{out}{error}");
    assert_eq!(gateway.get("/").text(), "two");
    let by_address = format!("unix:{}", socket.display());
    let (code, out, error) = run(&["show", "routes", "--admin", &by_address], None);
    assert!(code == 0 && out.contains("\"name\":\"all\""), "{out}{error}");

    // A second gateway is told which key moves it, and the first one keeps its socket.
    let (code, _, error) = run(&["run", "-c", &config], None);
    assert!(code == 1 && error.contains("another gateway may run") && error.contains("admin.address"), "{error}");
    assert!(get_over(&socket, "/healthz").is_ok());
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_a_crash_has_left_is_replaced() {
    let mut gateway = Gateway::start(&format!("{ROUTE}admin: unix:admin.sock"));
    gateway.signal("-KILL");
    gateway.wait();
    let folder = std::mem::replace(&mut gateway.folder, tempfile::tempdir().expect("a folder"));
    let socket = folder.path().join("admin.sock");
    assert!(socket.exists());
    let again = Gateway::start_in(folder, &format!("{ROUTE}admin: unix:admin.sock"), &[]);
    assert!(get_over(&again.folder.path().join("admin.sock"), "/healthz").expect("a response").contains("200 OK"));
}

#[test]
fn a_successor_has_the_unix_socket() {
    let mut old = Gateway::start(&format!("{ROUTE}admin: unix:admin.sock{PROCESS}"));
    let socket = old.folder.path().join("admin.sock");
    let (successor, _) = upgrade(&old);
    assert_eq!(old.wait(), Some(0), "{}", old.log());
    let text = get_over(&socket, "/process").expect("the successor's response");
    assert!(text.contains(&format!("\"pid\":{}", successor.0)), "{text}");
}

#[test]
fn a_second_gateway_is_told_which_key_moves_it() {
    let gateway = Gateway::start(ROUTE);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, complete(&format!("{ROUTE}admin: {}", gateway.admin))).expect("written");
    let (code, _, error) = run(&["run", "-c", &file.display().to_string()], None);
    assert_eq!(code, 1);
    let wanted = format!("the admin listener cannot be bound on {}: ", gateway.admin);
    assert!(error.contains(&wanted) && error.contains("admin.address, or \"admin: none\""), "{error}");
}

#[test]
fn a_reload_of_another_file_fails() {
    let gateway = Gateway::start(ROUTE);
    gateway.write_config(&ROUTE.replace("one", "two"));
    let (mine, admin) = (gateway.folder.path().join("mine.yaml"), gateway.admin.to_string());
    std::fs::copy(gateway.config(), &mine).expect("a copy");
    let mine = mine.display().to_string();
    let (code, out, error) = run(&["reload", "-c", &mine, "--admin", &admin], None);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    let real = gateway.config().display().to_string();
    assert!(error.contains("runs another file") && error.contains(&real), "{error}");
    assert_eq!(gateway.get("/").text(), "one", "nothing was reloaded");
    let (code, _, error) = run(&["reload", "-c", &mine, "--admin", &admin, "--any-file"], None);
    assert_eq!((code, gateway.get("/").text().as_str()), (0, "two"), "{error}");
    // Without a file it is the gateway's own.
    let (code, out, error) = run(&["reload", "--admin", &admin], None);
    assert!(code == 0 && out.contains(&real), "{out}{error}");
}

#[test]
fn commands_do_not_need_the_secrets_of_the_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = |body: &str| {
        format!(
            "routes: [{{name: all, filters: [{{jwt: {{secret: '${{env:JWT_SECRET}}'}}}}], action: {{respond: {{body: {body}}}}}}}]
admin: {{address: 127.0.0.1:0, token: '${{env:ADMIN_TOKEN}}'}}{PROCESS}"
        )
    };
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&yaml("one"))).expect("written");
    let mut command = Command::new(BINARY);
    command.args(["run", "-c"]).arg(&config);
    command.envs([("JWT_SECRET", "a-secret-of-the-service-of-32-bytes"), ("ADMIN_TOKEN", "the-admin-token")]);
    let gateway = Gateway::start_by(folder, command);
    let (file, admin) = (config.display().to_string(), gateway.admin.to_string());
    let (code, _, error) = run(&["reload", "-c", &file, "--admin", &admin], None);
    assert!(code == 1 && error.contains("the admin token cannot be read here"), "{error}");
    assert!(error.contains("ADMIN_TOKEN is not set") && error.contains("--token-file"), "{error}");

    let token = gateway.folder.path().join("token");
    std::fs::write(&token, "the-admin-token\n").expect("written");
    let token = token.display().to_string();
    gateway.write_config(&yaml("two"));
    let options = ["-c", &file, "--admin", &admin, "--token-file", &token];
    let (code, out, error) = run(&[&["diff"][..], &options].concat(), None);
    assert_eq!((code, out.as_str()), (0, "~ routes.all.action.respond.body: one -> two\n1 change\n"), "{error}");
    let (code, _, error) = run(&[&["reload"][..], &options].concat(), None);
    assert_eq!(code, 0, "{error}");
    let variables = [("PORTCULLIS_ADMIN_TOKEN", "the-admin-token")];
    let (code, out, error) = run_with(&["diff", "-c", &file, "--admin", &admin], &variables);
    assert_eq!((code, out.as_str()), (0, "nothing would change\n"), "{error}");
    let (code, _, error) = run_with(&["diff", "--admin", &admin], &[("PORTCULLIS_ADMIN_TOKEN", "wrong")]);
    assert!(code == 1 && error.contains("is not that of the running gateway"), "{error}");
    // Errors of the file are those that the gateway finds.
    gateway.write_config(&yaml("two").replace("action:", "axtion:"));
    let (code, _, error) = run(&[&["diff"][..], &options].concat(), None);
    assert!(code == 2 && error.contains("did you mean \"action\""), "{error}");
    // A successor has the gateway's environment.
    gateway.write_config(&yaml("three"));
    let (_successor, _) = upgrade(&gateway);
}

#[test]
fn operators_see_routes_configuration_and_reasons() {
    let target = Target::echo("a");
    let (_held, dead) = refused();
    let gateway = Gateway::start(&format!(
        "upstreams:
  app: {{targets: [\"localhost:{}\", \"{dead}\"], health: {{active: {{interval: 1h}}}}}}
consumers: {{ada: {{credentials: [{{api_key: {{value: very-secret-key}}}}]}}}}
routes:
  - {{name: keyed, match: {{path: /keyed/*, methods: [GET]}}, filters: [{{headers: {{request: {{set: {{x-a: b}}}}}}}}, {{api_key: {{}}}}], action: {{forward: app}}}}
  - {{name: rest, action: {{respond: {{body: rest}}}}}}",
        target.address.port()
    ));
    let get = |path: &str| client::get(gateway.admin, path);
    let routes = get("/routes").json();
    assert_eq!(routes[0]["match"]["path"], "/keyed/*");
    assert_eq!(routes[0]["filters"], serde_json::json!(["api_key", "headers"]), "in the order in which they run");
    assert_eq!((&routes[0]["action"]["forward"], &routes[0]["listeners"][0]), (&"app".into(), &"main".into()));
    assert_eq!((&routes[1]["name"], &routes[1]["filters"]), (&"rest".into(), &serde_json::json!([])));

    let config = get("/config");
    assert_eq!(config.json()["consumers"]["ada"]["credentials"][0]["api_key"]["value"], "(secret)");
    assert!(!config.text().contains("very-secret-key") && config.text().lines().count() == 1);
    assert!(get("/config?pretty").text().lines().count() > 20);
    assert_eq!(get("/config?pretty").json(), config.json());

    let reasons = get("/reasons").json();
    let limited = reasons.as_array().and_then(|all| all.iter().find(|one| one["reason"] == "rate_limited"));
    assert_eq!(limited.map(|one| &one["status"]), Some(&429.into()));

    let is_time = |value: &serde_json::Value| {
        let text = value.as_str().unwrap_or_default();
        text.len() == 24 && text.starts_with("20") && text.ends_with('Z') && &text[10..11] == "T"
    };
    let process = get("/process").json();
    assert!(is_time(&process["started"]) && is_time(&get("/readyz").json()["last_reload"]["at"]), "{process}");
    assert_eq!(process["pid"], gateway.child.id());
    let file = gateway.config().display().to_string();
    assert!(process["file"] == file && process["source"] == file, "{process}");
    let targets = get("/upstreams").json()[0]["targets"].clone();
    let named = targets.as_array().and_then(|all| all.iter().find(|one| one["host"] == "localhost")).expect("the host");
    assert!(named["address"].is_string() && is_time(&named["health"]["last_probe"]), "{targets}");

    assert_eq!(get("/").json().as_array().map(|all| all.len() > 10), Some(true));
    assert_eq!(client::request(gateway.admin, "POST", "/routes", &[]).header("allow"), Some("GET, HEAD"));
    let unknown = get("/nothing");
    assert!(unknown.status == 404 && unknown.text().contains("/upstreams/{name}/targets"), "{}", unknown.text());

    // The log of the start names what runs, and the target that is down.
    let log = gateway.log();
    let starts = format!("starts as process {} with {}", gateway.child.id(), gateway.config().display());
    assert!(log.contains(&starts) && log.contains(&format!("target {dead} is down from the start: ")), "{log}");
    assert!(!log.contains(&format!("{} is down", target.address)), "{log}");
}

#[test]
fn the_process_log_has_the_format_and_the_level_of_the_configuration() {
    let log = "log: {access: {output: file, file: access.log}, process: {format: json, level: LEVEL}}";
    let gateway = Gateway::start(&format!("{ROUTE}{}", log.replace("LEVEL", "info")));
    for line in gateway.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(line["time"].is_string() && line["level"] == "info" && line["message"].is_string(), "{line}");
    }
    gateway.write_config(&format!("{ROUTE}{}", log.replace("LEVEL", "error")));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.reload().status, 200);
    gateway.write_config(&format!("{ROUTE}{}\nshield: 1", log.replace("LEVEL", "error")));
    assert_eq!(gateway.reload().status, 422);
    eventually("the error is logged", || gateway.log().contains("\"level\":\"error\""));
    // The line of the first reload alone was written with the level before.
    let log = gateway.log();
    assert!(log.matches("asks for a reload").count() == 1 && !log.contains("was reloaded"), "{log}");
}

#[test]
fn a_configuration_from_standard_input_is_compared() {
    let gateway = Gateway::start(ROUTE);
    let mut command = Command::new(BINARY);
    command.args(["diff", "-c", "-", "--admin", &gateway.admin.to_string()]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    let text = complete(&ROUTE.replace("one", "two"));
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("~ routes.all.action.respond.body: one -> two"), "{said}");
}
