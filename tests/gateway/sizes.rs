//! What a configuration may be at most: no text, however made, ends the process that reads it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::harness::gateway::{Gateway, run};

const LISTENERS: &str = "listeners: [{name: a, address: 127.0.0.1:0}]\n";

/// What `check` says of a text, which is wrong.
fn told(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert_eq!(code, 2, "{told}");
    told
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..count).map(item).collect();
    format!("[{}]", items.join(", "))
}

#[test]
fn hosts_times_paths_are_bounded() {
    let (hosts, paths) = (list(100_000, |n| format!("h{n}.test")), list(1_000, |n| format!("/p{n}")));
    let text = format!(
        "{LISTENERS}routes:\n  - name: a\n    match:\n      host: {hosts}\n      path: {paths}\n    action: {{respond: {{}}}}\n"
    );
    let told = told(&text);
    assert!(
        told.contains("routes[0].match: 100000 hosts times 1000 paths are too many: at most 10000"),
        "{}",
        &told[..told.len().min(500)]
    );
}

#[test]
fn routes_and_their_places_on_all_listeners_are_bounded() {
    let mut routes = format!("{LISTENERS}routes:\n");
    (0..100_001).for_each(|n| {
        writeln!(routes, "- {{name: r{n}, match: {{path: /{n}}}, action: {{respond: {{}}}}}}").expect("a text");
    });
    let text = told(&routes);
    assert!(text.contains("routes: 100001 routes are too many: at most 100000"), "{}", &text[..text.len().min(500)]);
    let listeners = list(1_000, |n| format!("{{name: l{n}, address: \"127.0.0.1:{}\"}}", 10_000 + n));
    let hosts = list(1_001, |n| format!("h{n}.test"));
    let text = told(&format!(
        "listeners: {listeners}\nroutes: [{{name: a, match: {{host: {hosts}}}, action: {{respond: {{}}}}}}]\n"
    ));
    assert!(
        text.contains("more than 500000 combinations of listener, host and path"),
        "{}",
        &text[..text.len().min(500)]
    );
}

#[test]
fn files_are_regular_and_up_to_a_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let sparse = |name: &str, size: u64| std::fs::File::create(path(name)).expect("made").set_len(size).expect("set");
    sparse("large", 65 << 20);
    sparse("key", (1 << 20) + 1);
    let route =
        |filter: &str| format!("{LISTENERS}routes: [{{name: a, filters: [{filter}], action: {{respond: {{}}}}}}]\n");
    for other in ["pipe", "/dev/zero"] {
        for text in [
            format!("include: [{other}]\n{}", route("")),
            route(&format!("{{jwt: {{secret: '${{file:{other}}}'}}}}")),
            route(&format!("{{jwt: {{jwks: 'file:{other}'}}}}")),
            format!("upstreams: {{a: {{targets: ['h:1'], tls: {{ca: {other}}}}}}}\n{}", route("")),
            route("").replace("0}]", &format!("0, tls: {{certificates: [{{cert: {other}, key: {other}}}]}}}}]")),
        ] {
            std::fs::write(path("c.yaml"), &text).expect("written");
            let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
            assert!(code == 2 && told.contains("no regular file"), "{text}: {told}");
        }
        let (code, _, told) = run(&["check", "-c", other], Some(folder.path()));
        assert!(code == 2 && told.contains("no regular file"), "{told}");
    }
    for (text, why) in [
        (format!("include: [large]\n{}", route("")), "at most 671"),
        (route("{jwt: {secret: '${file:key}'}}"), "1048577 bytes or more, and at most 1048576 are read"),
    ] {
        std::fs::write(path("c.yaml"), &text).expect("written");
        let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
        assert!(code == 2 && told.contains("too large") && told.contains(why), "{text}: {told}");
    }
}

#[test]
fn the_size_of_all_files_together_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    // Each is a tenth of what a configuration may have, and each by aliases.
    let mut part = format!("routes:\n  - &a {}\n", "x".repeat(1 << 20));
    (0..26).for_each(|_| part.push_str("  - *a\n"));
    (0..12).for_each(|n| std::fs::write(folder.path().join(format!("{n}.part")), &part).expect("written"));
    std::fs::write(folder.path().join("c.yaml"), format!("include: ['*.part']\n{LISTENERS}")).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(
        code == 2 && told.contains("too large: at most 4000000 values and 256 MiB"),
        "{}",
        &told[..told.len().min(500)]
    );
}

#[test]
fn of_100_000_mistakes_the_first_are_told_and_all_are_counted() {
    let mut text = format!("{LISTENERS}routes:\n");
    (0..100_000).for_each(|n| {
        writeln!(text, "- {{name: r{n}, match: {{path: /{n}}}, action: {{respond: {{status: no}}}}}}").expect("a text");
    });
    let before = Instant::now();
    let told = told(&text);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 102);
    assert!(lines[0].contains("routes[0].") && lines[99].contains("routes[99]."), "{} {}", lines[0], lines[99]);
    assert_eq!(lines[100..], ["and 99900 more, which are not shown", "100000 errors"]);
    // A wide margin for a machine under load and a binary that is not optimised.
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    // The same for what names no upstream, which is found later.
    let gateway = Gateway::start("routes: [{name: a, action: {respond: {body: ok}}}]\n");
    let text = text.replace("{respond: {status: no}}", "{forward: nobody}");
    gateway.write_config(&text.replace(LISTENERS, ""));
    let response = gateway.reload();
    let document = response.json();
    assert_eq!((response.status, document["count"].as_u64()), (422, Some(100_000)));
    assert_eq!(document["mistakes"].as_array().map(Vec::len), Some(101));
    assert_eq!(gateway.get("/").text(), "ok");
}

/// What is small as a text and large as what is made of it.
#[test]
fn expressions_and_tables_are_bounded_together() {
    let mut routes = format!("{LISTENERS}routes:\n");
    for n in 0..400 {
        let headers = format!("{{x-a: {{regex: '^{n}\\w{{20}}$'}}}}");
        writeln!(routes, "- {{name: r{n}, match: {{path: /{n}, headers: {headers}}}, action: {{respond: {{}}}}}}")
            .expect("a text");
    }
    let text = told(&routes);
    assert!(
        text.contains("all regular expressions together take more than 128 MiB"),
        "{}",
        &text[..text.len().min(500)]
    );
    assert!(!text.contains("routes[0]."), "the first ones are fine");
    let upstreams = |balance: &str, count: usize| -> String {
        let one = |n| format!("  u{n}: {{balance: {balance}, targets: [{{address: 'h:1', weight: 1000}}]}}\n");
        format!("{LISTENERS}upstreams:\n{}", (0..count).map(one).collect::<String>())
    };
    for (balance, count) in [("{hash: {}}", 2_049), ("{hash: {table: ring}}", 200)] {
        let text = told(&format!("{}routes: [{{name: a, action: {{respond: {{}}}}}}]\n", upstreams(balance, count)));
        assert!(
            text.contains("are too large: at most 512 MiB together"),
            "{balance}: {}",
            &text[..text.len().min(500)]
        );
    }
    let mut splits = format!("{}routes:\n", upstreams("random", 2));
    for n in 0..1_001 {
        let split = "split: [{upstream: u0, weight: 1}, {upstream: u1, weight: 1}], split_by: address";
        writeln!(splits, "- {{name: r{n}, match: {{path: /{n}}}, action: {{forward: {{{split}}}}}}}").expect("a text");
    }
    let text = told(&splits);
    assert!(
        text.contains("routes[1000].action.forward.split_by: more than 1000 splits by a key are too many"),
        "{text}"
    );
}
