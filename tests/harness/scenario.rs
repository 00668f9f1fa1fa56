//! Scenario files: targets, a configuration, and requests with what is right about their answers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::client::{Answer, Connection, head};
use super::gateway::Gateway;
use super::target::Target;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    #[allow(dead_code, reason = "for the reader of the file")]
    about: String,
    /// Targets by name, each by the word for its behaviour.
    #[serde(default)]
    targets: BTreeMap<String, String>,
    /// The configuration; `{name}` is a target's address.
    config: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// `GET /path`.
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// The client's address.
    from: Option<std::net::Ipv4Addr>,
    /// How often; all answers have to be right.
    #[serde(default = "once")]
    times: usize,
    #[serde(default)]
    expect: Expect,
}

fn once() -> usize {
    1
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expect {
    status: Option<u16>,
    reason: Option<String>,
    /// Headers and their values; `*` is any value, `-` is that it is not there.
    headers: BTreeMap<String, String>,
    body: Option<String>,
    has: Vec<String>,
    lacks: Vec<String>,
    /// What an echoing target saw: values by JSON pointer, `-` is that it is not there.
    seen: BTreeMap<String, String>,
    /// How many answers came from which target.
    spread: BTreeMap<String, usize>,
}

/// Runs a file.
pub fn run(path: &Path) {
    let text = std::fs::read_to_string(path).expect("the scenario");
    let scenario: Scenario = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut config = scenario.config.clone();
    let mut targets = Vec::new();
    for (name, word) in &scenario.targets {
        let target = Target::named(word, name.clone().leak());
        config = config.replace(&format!("{{{name}}}"), &target.address.to_string());
        targets.push(target);
    }
    let gateway = Gateway::start(&config);
    for (number, step) in scenario.steps.iter().enumerate() {
        let what = format!("{}, step {} ({})", path.display(), number + 1, step.request);
        let answers: Vec<Answer> = (0..step.times).map(|_| ask(&gateway, step)).collect();
        for answer in &answers {
            check(&what, answer, &step.expect);
        }
        for (target, count) in &step.expect.spread {
            let found = answers.iter().filter(|a| a.header("x-target") == Some(target)).count();
            assert_eq!(found, *count, "{what}: answers of {target}");
        }
    }
}

fn ask(gateway: &Gateway, step: &Step) -> Answer {
    let (method, path) = step.request.split_once(' ').expect("METHOD PATH");
    let mut headers: Vec<(&str, &str)> = step.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let length = step.body.len().to_string();
    if !step.body.is_empty() && !step.headers.contains_key("content-length") {
        headers.push(("content-length", &length));
    }
    let mut connection = match step.from {
        Some(from) => Connection::open_from(gateway.address(), from),
        None => Connection::open(gateway.address()),
    };
    connection.ask(head(method, path, &headers) + &step.body)
}

fn check(what: &str, answer: &Answer, expect: &Expect) {
    let text = answer.text();
    if let Some(status) = expect.status {
        assert_eq!(answer.status, status, "{what}: {text}");
    }
    if let Some(reason) = &expect.reason {
        assert_eq!(&answer.reason(), reason, "{what}: {text}");
    }
    for (name, wanted) in &expect.headers {
        match (wanted.as_str(), answer.header(name)) {
            ("-", found) => assert_eq!(found, None, "{what}: {name}"),
            ("*", found) => assert!(found.is_some(), "{what}: {name} is missing"),
            (wanted, found) => assert_eq!(found, Some(wanted), "{what}: {name}"),
        }
    }
    if let Some(body) = &expect.body {
        assert_eq!(&text, body, "{what}");
    }
    for part in &expect.has {
        assert!(text.contains(part), "{what}: {part} is not in {text}");
    }
    for part in &expect.lacks {
        assert!(!text.contains(part), "{what}: {part} is in {text}");
    }
    let seen = answer.json();
    for (pointer, wanted) in &expect.seen {
        let found = seen.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        match wanted.as_str() {
            "-" => assert_eq!(found, None, "{what}: {pointer}"),
            "*" => assert!(found.is_some(), "{what}: {pointer} is missing in {text}"),
            wanted => assert_eq!(found.as_deref(), Some(wanted), "{what}: {pointer}"),
        }
    }
}
