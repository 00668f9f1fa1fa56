//! Scenario files: targets, a configuration, and requests with what is right about their answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::{Answer, Connection, head};
use super::eventually;
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
    /// Gives targets another behaviour first.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// `GET /path`; empty for a step without requests.
    #[serde(default)]
    request: String,
    /// Sends it to the operators' listener.
    #[serde(default)]
    admin: bool,
    /// Leaves the requests without their answers, which a later step with `release` reads.
    #[serde(default)]
    hold: bool,
    /// Lets targets answer what is held.
    #[serde(default)]
    release: bool,
    /// Keeps cookies, and sends those that were kept.
    #[serde(default)]
    jar: bool,
    /// Repeats the step until it is as expected, for at most 20 seconds.
    #[serde(default)]
    eventually: bool,
    /// Metrics and their values afterwards.
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
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
    /// How many answers came from which target: `100`, or `80-100`.
    spread: BTreeMap<String, String>,
    /// All answers came from one target; `same` is the target of the last such step.
    one_target: Option<OneTarget>,
    /// Each answer took at most so many milliseconds.
    within_ms: Option<u128>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum OneTarget {
    Any,
    Same,
    Other,
}

/// What a run carries from step to step.
struct Run {
    gateway: Gateway,
    targets: BTreeMap<String, Target>,
    held: Vec<Connection>,
    cookies: BTreeMap<String, String>,
    last: Option<String>,
}

/// Runs a file.
pub fn run(path: &Path) {
    let text = std::fs::read_to_string(path).expect("the scenario");
    let scenario: Scenario = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut config = scenario.config.clone();
    let mut targets = BTreeMap::new();
    for (name, word) in &scenario.targets {
        let target = Target::named(word, name.clone().leak());
        config = config.replace(&format!("{{{name}}}"), &target.address.to_string());
        targets.insert(name.clone(), target);
    }
    let mut run =
        Run { gateway: Gateway::start(&config), targets, held: Vec::new(), cookies: BTreeMap::new(), last: None };
    for (number, step) in scenario.steps.iter().enumerate() {
        let what = format!("{}, step {} ({})", path.display(), number + 1, step.request);
        run.step(&what, step);
    }
}

impl Run {
    fn step(&mut self, what: &str, step: &Step) {
        for (name, word) in &step.set {
            self.targets[name].become_(word);
        }
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.attempt(step) {
                Ok(()) => return,
                Err(_) if step.eventually && Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                Err(wrong) => panic!("{what}: {wrong}"),
            }
        }
    }

    fn attempt(&mut self, step: &Step) -> Result<(), String> {
        if step.hold {
            let before: usize = self.targets.values().map(Target::count).sum();
            for sent in 1..=step.times {
                let mut connection = Connection::open(self.gateway.address());
                connection.send(self.text(step));
                self.held.push(connection);
                // One after the other, so that each is counted before the next is balanced.
                eventually("the target has it", || {
                    self.targets.values().map(Target::count).sum::<usize>() >= before + sent
                });
            }
            return Ok(());
        }
        let mut answers = Vec::new();
        if step.release {
            self.targets.values().for_each(Target::release);
            answers = self.held.drain(..).map(|mut c| c.receive()).collect();
        } else if !step.request.is_empty() {
            for _ in 0..step.times {
                let begun = Instant::now();
                let answer = self.ask(step);
                if step.expect.within_ms.is_some_and(|most| begun.elapsed().as_millis() > most) {
                    return Err(format!("an answer took {:?}", begun.elapsed()));
                }
                check(&answer, &step.expect)?;
                answers.push(answer);
            }
        }
        self.spread(&answers, &step.expect)?;
        for (series, wanted) in &step.metrics {
            let found = self.gateway.metric(series);
            if (found - wanted).abs() > 1e-6 {
                return Err(format!("{series} is {found}"));
            }
        }
        Ok(())
    }

    fn spread(&mut self, answers: &[Answer], expect: &Expect) -> Result<(), String> {
        let from = |target: &str| answers.iter().filter(|a| a.header("x-target") == Some(target)).count();
        for (target, wanted) in &expect.spread {
            let (least, most) = wanted.split_once('-').unwrap_or((wanted, wanted));
            let bound = |text: &str| text.parse::<usize>().expect("a count");
            if !(bound(least)..=bound(most)).contains(&from(target)) {
                return Err(format!("{} answers of {target}, expected {wanted}", from(target)));
            }
        }
        let Some(one) = expect.one_target else { return Ok(()) };
        let name = answers.first().and_then(|a| a.header("x-target")).map(str::to_owned);
        if name.is_none() || answers.iter().any(|a| a.header("x-target") != name.as_deref()) {
            return Err("the answers came from several targets".to_owned());
        }
        let same = self.last == name;
        if (one == OneTarget::Same && !same) || (one == OneTarget::Other && same) {
            return Err(format!("the answers came from {name:?}, before from {:?}", self.last));
        }
        self.last = name;
        Ok(())
    }

    fn text(&self, step: &Step) -> String {
        let (method, path) = step.request.split_once(' ').expect("METHOD PATH");
        let mut headers: Vec<(&str, &str)> = step.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let fill = |text: &str| {
            self.targets
                .iter()
                .fold(text.to_owned(), |t, (n, at)| t.replace(&format!("{{{n}}}"), &at.address.to_string()))
        };
        let body = fill(&step.body);
        let length = body.len().to_string();
        if !step.body.is_empty() && !step.headers.contains_key("content-length") {
            headers.push(("content-length", &length));
        }
        let cookies: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let cookies = cookies.join("; ");
        if step.jar && !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        head(method, &fill(path), &headers) + &body
    }

    fn ask(&mut self, step: &Step) -> Answer {
        let to = if step.admin { self.gateway.admin } else { self.gateway.address() };
        let mut connection = match step.from {
            Some(from) => Connection::open_from(to, from),
            None => Connection::open(to),
        };
        let answer = connection.ask(self.text(step));
        if let (true, Some(cookie)) = (step.jar, answer.header("set-cookie")) {
            let (name, value) = cookie.split(';').next().and_then(|c| c.split_once('=')).expect("a cookie");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

/// Fails with what is wrong.
fn check(answer: &Answer, expect: &Expect) -> Result<(), String> {
    let text = answer.text();
    let need = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(format!("{}: {text}", what())) };
    if let Some(status) = expect.status {
        need(answer.status == status, &|| format!("status {} instead of {status}", answer.status))?;
    }
    if let Some(reason) = &expect.reason {
        need(&answer.reason() == reason, &|| format!("reason {} instead of {reason}", answer.reason()))?;
    }
    for (name, wanted) in &expect.headers {
        let found = answer.header(name);
        let holds = match wanted.as_str() {
            "-" => found.is_none(),
            "*" => found.is_some(),
            wanted => found == Some(wanted),
        };
        need(holds, &|| format!("header {name} is {found:?} instead of {wanted}"))?;
    }
    if let Some(body) = &expect.body {
        need(&text == body, &|| format!("body instead of {body}"))?;
    }
    for part in &expect.has {
        need(text.contains(part), &|| format!("{part} is not in"))?;
    }
    for part in &expect.lacks {
        need(!text.contains(part), &|| format!("{part} is in"))?;
    }
    for (pointer, wanted) in &expect.seen {
        let found = answer.json().pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let holds = match wanted.as_str() {
            "-" => found.is_none(),
            "*" => found.is_some(),
            wanted => found.as_deref() == Some(wanted),
        };
        need(holds, &|| format!("{pointer} is {found:?} instead of {wanted}"))?;
    }
    Ok(())
}
