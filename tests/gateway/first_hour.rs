//! What an operator writes at first: other words, other forms, and what YAML makes of them.

use super::harness::gateway::run;

/// Writes a configuration and checks it; returns the exit code, the output and the errors.
fn check(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    run(&[&["check", "-c", "c.yaml"], arguments].concat(), Some(folder.path()))
}

const LISTENER: &str = "listeners: [{name: main, address: 127.0.0.1:0}]\n";

#[test]
fn one_value_is_a_list_and_a_number_a_text() {
    let text = "
listeners: {name: main, address: 127.0.0.1:0, protocols: http1, trusted_proxies: 10.0.0.0/8}
upstreams:
  users: {targets: 127.0.0.1:1, retry: {when: connect, statuses: 503, grpc_statuses: 14}}
  one: {targets: {address: 127.0.0.1:2, weight: 2}}
consumers: {5: {credentials: {api_key: {value: 12345678901234567890}}}}
defaults: {filters: {headers: {response: {set: {x-version: 1.10, x-fine: true, x-zeros: 007}, remove: server}}}}
routes:
  - name: 1
    listeners: main
    match: {path: /a, methods: GET, headers: {x-version: 2}, query: {page: 1, all: true}}
    filters: {cors: {origins: https://a.example, methods: GET, headers: x-a, expose: x-b}}
    without: headers
    action: {forward: users}
  - {name: one, match: {path: /b}, filters: {strip_fields: {response: ssn}}, action: {forward: one}}
  - {name: both, match: {path: /c}, action: {respond: {status: 200, headers: {x-count: 5}}}}
";
    let (code, _, errors) = check(text, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    // A number keeps the digits as they are written.
    let (_, shown, _) = check(
        &format!("{LISTENER}routes: [{{name: 1.10, match: {{path: /}}, action: {{respond: {{}}}}}}]\n"),
        &["--routes"],
    );
    assert!(shown.contains("route 1.10"), "{shown}");
}

#[test]
fn sections_of_several_files_may_hold_one_entry_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "c.yaml",
        &format!("include: r.yaml\n{LISTENER}routes: {{name: a, match: {{path: /a}}, action: {{respond: {{}}}}}}\n"),
    );
    write("r.yaml", "routes: {name: b, match: {path: /b}, action: {respond: {}}}\n");
    let (code, out, errors) = run(&["check", "c.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("2 routes") && out.contains("in 2 files"), "{out}");
}

#[test]
fn anchors_and_merge_keys_share_what_is_written_once() {
    let text = "
x-timeouts: &timeouts {timeouts: {connect: 1s}}
x-probe: &probe
  health: {active: {path: /healthz, interval: 1s}}
listeners: [{name: main, address: 127.0.0.1:0}]
upstreams:
  a: {<<: *timeouts, targets: [127.0.0.1:1]}
  b:
    <<: [*timeouts, *probe]
    targets: [127.0.0.1:2]
    health: {active: {path: /ready}}
routes:
  - {name: a, match: {path: /a}, action: {forward: a}}
  - {name: b, match: {path: /b}, action: {forward: b}}
";
    let (code, _, errors) = check(text, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let (code, _, errors) = check(&text.replace("connect: 1s", "connect: 1x"), &[]);
    assert_eq!(code, 2);
    assert!(errors.contains("c.yaml:2:44: upstreams.a.timeouts.connect: expected"), "the anchor's place: {errors}");
    let (_, _, errors) = check(&text.replace("<<: *timeouts", "<<: 5"), &[]);
    assert!(errors.contains("<< merges mappings"), "{errors}");
    let (_, _, errors) = check(&text.replace("x-probe", "probe"), &[]);
    assert!(errors.contains("probe: unknown key"), "{errors}");
}

#[test]
fn a_key_that_is_there_twice_hides_no_other_error() {
    let text = format!(
        "{LISTENER}routes:\n  - {{name: a, match: {{path: a}}, action: {{respond: {{}}}}}}\n\
         routes:\n  - {{name: b, match: {{path: /b}}, action: {{forward: nowhere}}}}\n"
    );
    let (code, _, errors) = check(&text, &[]);
    assert_eq!(code, 2);
    for part in
        ["c.yaml:4:1: the key \"routes\" for the second time", "path that starts with /", "no upstream \"nowhere\""]
    {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn references_have_defaults_and_may_be_numbers() {
    let text = "
listeners:
  - name: main
    address: '127.0.0.1:${env:SURELY_NOT_SET:-0}'
    limits: {connections: '${env:SURELY_NOT_SET:-500}'}
routes:
  - name: a
    filters: [{cors: {origins: ['*'], credentials: '${env:SURELY_NOT_SET:-false}'}}]
    action: {respond: {}}
";
    let (code, _, errors) = check(text, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let (code, _, errors) = check(&text.replace(":-500", ":-many"), &[]);
    assert!(code == 2 && errors.contains("limits.connections: expected a whole number"), "{errors}");
    let (_, _, errors) = check(&text.replace("${env:SURELY_NOT_SET:-500}", "${CONNECTIONS}"), &[]);
    assert!(errors.contains("write ${env:CONNECTIONS}"), "{errors}");
}

#[test]
fn another_programs_file_is_recognised() {
    for (text, program) in [
        ("events {}\nhttp {\n  server {\n    listen 80;\n    location / { proxy_pass http://a; }\n  }\n}\n", "nginx"),
        ("upstream a {\n  server 10.0.0.1:80;\n}\n", "nginx"),
        ("example.com {\n  reverse_proxy localhost:9000\n}\n", "Caddy"),
        ("_format_version: \"3.0\"\nservices: []\n", "Kong"),
        ("apiVersion: v1\nkind: ConfigMap\n", "Kubernetes"),
    ] {
        let (code, _, errors) = check(text, &[]);
        assert!(code == 2 && errors.contains(program), "{program}: {errors}");
    }
}

#[test]
fn check_takes_a_file_standard_input_or_the_installed_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, format!("{LISTENER}routes: [{{name: a, action: {{respond: {{}}}}}}]\n")).expect("written");
    for arguments in [&["check", "c.yaml"][..], &["check", "-c", "c.yaml"], &["-t", "c.yaml"], &["-t", "-c", "c.yaml"]]
    {
        let (code, out, errors) = run(arguments, Some(folder.path()));
        assert!(code == 0 && out.contains("c.yaml: fine"), "{arguments:?}: {out}{errors}");
    }
    assert_eq!(run(&["check", "c.yaml", "-c", "c.yaml"], Some(folder.path())).0, 2);
    let (code, _, errors) = run(&["check"], None);
    assert!(code == 2 && errors.contains("/etc/portcullis/portcullis.yaml: cannot be read"), "{errors}");
    let with = |arguments: &[&str], input: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).env("PORTCULLIS_CONFIG", &file).current_dir(folder.path());
        let command = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("the binary");
        // It may have ended already.
        let _ = std::io::Write::write_all(&mut child.stdin.take().expect("an input"), input.as_bytes());
        let output = child.wait_with_output().expect("an end");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    let (code, text) = with(&["check"], "");
    assert!(code == Some(0) && text.contains("c.yaml: fine"), "{text}");
    let (code, text) = with(&["explain", "GET", "/"], "");
    assert!(code == Some(0) && text.contains("route: a"), "{text}");
    let (code, text) = with(&["check", "-"], "listeners: []\nroutes: [{nme: x}]\n");
    assert!(code == Some(2) && text.contains("standard input:2:11: routes[0].nme: unknown key"), "{text}");
    let (code, text) = with(&["run", "-c", "-"], "");
    assert!(code == Some(2) && text.contains("standard input is for"), "{text}");
}

#[test]
fn check_prints_json_for_programs() {
    let text = format!(
        "{LISTENER}upstreams: {{idle: {{targets: 127.0.0.1:1}}}}\nroutes: [{{name: a, action: {{respond: {{}}}}}}]\n"
    );
    let json = |text: &str| {
        let (code, out, errors) = check(text, &["--format", "json"]);
        assert_eq!(errors, "");
        (code, serde_json::from_str::<serde_json::Value>(&out).expect("JSON"))
    };
    let (code, fine) = json(&text);
    assert_eq!(code, 0);
    assert_eq!((&fine["valid"], &fine["routes"], &fine["errors"]), (&true.into(), &1.into(), &serde_json::json!([])));
    let expected = serde_json::json!([{
        "file": "c.yaml", "line": 2, "column": 13, "place": "upstreams.idle", "message": "nothing uses this upstream"
    }]);
    assert_eq!(fine["warnings"], expected);
    let (code, wrong) = json(&text.replace("name: a", "nme: a"));
    assert_eq!(code, 2);
    assert_eq!((&wrong["valid"], &wrong["error_count"]), (&false.into(), &2.into()));
    assert_eq!(wrong["errors"][1]["place"], "routes[0].nme");
    assert_eq!(wrong["errors"][1]["line"], 3);
}

#[test]
fn explain_shows_what_decides_and_what_the_target_gets() {
    let text = "
listeners: [{name: main, address: 127.0.0.1:0}]
upstreams: {users: {targets: 127.0.0.1:1}, next: {targets: 127.0.0.1:2}}
shield: {requests_per_address: 100/s}
defaults: {filters: [{rate_limit: {limit: 20/10s, by: {header: x-tenant}}}]}
routes:
  - {name: one, match: {host: a.test, path: '/u/{id}'}, action: {forward: {upstream: users, rewrite: '/v2/{id}?v=2'}}}
  - {name: all, match: {path: '/u/*'}, body: 2MiB, action: {forward: {upstream: next, strip_prefix: /u, host: target}}}
  - {name: get, match: {path: '/u/{x}/y', methods: [GET]}, action: {redirect: {to: 'https://{host}{path}', status: 301}}}
  - {name: any, match: {path: '/u/{x}/y'}, action: {respond: {status: 204}}}
";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    let explain = |arguments: &[&str]| {
        let (_, out, errors) = run(&[&["explain", "-c", "c.yaml"], arguments].concat(), Some(folder.path()));
        assert_eq!(errors, "");
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let has = |lines: &[String], all: &[&str]| {
        for line in all {
            assert!(lines.iter().any(|known| known == line), "{line} is not in {lines:#?}");
        }
    };
    has(
        &explain(&["GET", "http://a.test/u/7?x=1"]),
        &[
            "one a.test /u/{id} selected",
            "all * /u/* runner-up: matches too; decided by host: an exact one before *.suffix before any",
            "limit: 100/s by address (shield)",
            "limit: 20/10s by the header x-tenant (rate_limit)",
            "limit: a request body of 100MiB (the listener's)",
            "limit: 10000 requests at a time, and 1024 that wait for 5s (the upstream users)",
            "request to the target: GET /v2/7?v=2&x=1",
            "host for the target: a.test (the client's)",
        ],
    );
    has(
        &explain(&["PUT", "http://b.test/u/7/z?x=1"]),
        &[
            "all * /u/* selected",
            "limit: a request body of 2MiB (the route's)",
            "request to the target: PUT /7/z?x=1",
            "host for the target: the target's own name",
        ],
    );
    has(
        &explain(&["GET", "http://b.test/u/7/y"]),
        &[
            "any * /u/{x}/y runner-up: matches too; decided by methods: a route that names some before one that names none",
            "response: 301",
            "location: https://b.test/u/7/y",
        ],
    );
    has(&explain(&["PUT", "http://b.test/u/7/y"]), &["response: 204"]);
}

/// Of each wrong guess in tests/compile/guesses.yaml the error says what to write.
#[test]
fn errors_say_what_to_write_instead() {
    let text = include_str!("../compile/guesses.txt");
    let (mut count, mut without) = (0, Vec::new());
    for line in text.lines().filter(|line| line.starts_with("guesses.yaml:")) {
        count += 1;
        let hints = [
            "write",
            "did you mean",
            "is missing",
            "belongs below",
            "an entry of its own",
            "file of Kong",
            "filters of all",
        ];
        if !hints.iter().any(|hint| line.contains(hint)) {
            without.push(line);
        }
    }
    assert!(count > 60, "{count}");
    assert!(without.is_empty(), "{}", without.join("\n"));
}
