//! Conformance of the cache to RFC 9111 and RFC 9110, one row a clause, over real sockets. Each row has a URL of its
//! own at one origin, which responds as the row says; time passes by `Age` and `Date`, and nothing sleeps. Rows run
//! side by side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::harness::client::{Answer, Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::{Seen, Target};

/// Header fields, by name and value. In values `{now}`, `{now-60}` and `{now+60}` stand for dates.
pub type Fields = &'static [(&'static str, &'static str)];

/// What a row expects to happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The stored response is used; the origin is not asked.
    Hit,
    /// The origin is asked, and its response is sent.
    Fetch,
    /// The origin is asked with a condition, and confirms the stored response.
    Validate,
    /// The gateway responds itself, and the origin is not asked.
    Own,
}

/// One request of a row.
#[derive(Clone, Debug)]
pub struct Step {
    method: &'static str,
    request: Fields,
    path: &'static str,
    origin: Option<(u16, Fields, &'static str)>,
    way: Way,
    status: u16,
    has: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
    asked: Vec<(&'static str, &'static str)>,
    not_asked: Vec<&'static str>,
    body: Option<&'static str>,
    is_old: bool,
}

/// A clause, and the requests that show it.
pub struct Row {
    clause: &'static str,
    route: &'static str,
    steps: Vec<Step>,
}

/// Returns a row of the route with default settings.
pub fn row(clause: &'static str, steps: impl Into<Vec<Step>>) -> Row {
    row_at("plain", clause, steps)
}

/// Returns a row of that route.
pub fn row_at(route: &'static str, clause: &'static str, steps: impl Into<Vec<Step>>) -> Row {
    Row { clause, route, steps: steps.into() }
}

fn step(way: Way) -> Step {
    Step {
        method: "GET",
        request: &[],
        path: "",
        origin: None,
        way,
        status: 200,
        has: Vec::new(),
        lacks: Vec::new(),
        asked: Vec::new(),
        not_asked: Vec::new(),
        body: None,
        is_old: false,
    }
}

/// A GET for which the origin is asked; it responds with 200 and these fields.
pub fn fetch(fields: Fields) -> Step {
    Step { origin: Some((200, fields, "")), ..step(Way::Fetch) }
}

/// A GET for which the origin is asked; it responds with that status and these fields.
pub fn fetch_status(status: u16, fields: Fields) -> Step {
    Step { origin: Some((status, fields, "")), status, ..step(Way::Fetch) }
}

/// A GET that is served from what is stored.
pub fn hit() -> Step {
    step(Way::Hit)
}

/// A GET for which the origin is asked whether what is stored is still valid; it responds with 304 and these fields.
pub fn validate(fields: Fields) -> Step {
    Step { origin: Some((304, fields, "")), ..step(Way::Validate) }
}

/// A GET that the gateway responds to itself.
pub fn own(status: u16) -> Step {
    Step { status, ..step(Way::Own) }
}

impl Step {
    /// With these fields in the request.
    pub fn with(self, request: Fields) -> Self {
        Self { request, ..self }
    }

    /// With that method.
    pub fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// For that path below the row's own, or with that query.
    pub fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    /// The client gets that status.
    pub fn gets(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The client gets a field with that value.
    pub fn has(mut self, name: &'static str, value: &'static str) -> Self {
        self.has.push((name, value));
        self
    }

    /// The client does not get that field.
    pub fn lacks(mut self, name: &'static str) -> Self {
        self.lacks.push(name);
        self
    }

    /// The origin gets a field with that value.
    pub fn asks(mut self, name: &'static str, value: &'static str) -> Self {
        self.asked.push((name, value));
        self
    }

    /// The origin does not get that field.
    pub fn asks_without(mut self, name: &'static str) -> Self {
        self.not_asked.push(name);
        self
    }

    /// The client gets that body, in place of the one that the origin has sent last.
    pub fn body(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The client gets the body that it got before, and not the one that the origin sends now.
    pub fn of_first(self) -> Self {
        Self { is_old: true, ..self }
    }

    /// Where the origin is asked without fields of the request's own, it sends that body.
    pub fn sends_once(self, body: &'static str) -> Self {
        if self.request.is_empty() { self.sends(body) } else { self }
    }

    /// The origin sends that body.
    pub fn sends(mut self, body: &'static str) -> Self {
        if let Some((_, _, own)) = &mut self.origin {
            *own = body;
        }
        self
    }
}

/// What the origin does for one row, and what it has seen.
#[derive(Default)]
struct Script {
    next: Option<(u16, Vec<(String, String)>, String)>,
    seen: Vec<Seen>,
}

type Scripts = Arc<Mutex<HashMap<String, Script>>>;

fn origin(scripts: Scripts) -> Target {
    Target::new(move |stream, seen| {
        let key = seen.target.split(['?', '~']).next().unwrap_or_default().to_owned();
        let response = {
            let mut scripts = scripts.lock().expect("scripts");
            let script = scripts.entry(key).or_default();
            script.seen.push(seen.clone());
            script.next.clone()
        };
        let (status, fields, body) = response.unwrap_or((599, Vec::new(), "unexpected".to_owned()));
        let mut text = format!("HTTP/1.1 {status} X\r\n");
        let has_length = fields.iter().any(|(name, _)| name == "content-length");
        if status != 304 && status != 204 && !has_length {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        if seen.method != "HEAD" && status != 304 && status != 204 {
            text.push_str(&body);
        }
        std::io::Write::write_all(stream, text.as_bytes())
    })
}

/// Replaces `{now}`, `{now-60}` and `{now+60}` by dates.
fn dated(value: &str, now: SystemTime) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("{now") {
        out.push_str(before);
        let (offset, after) = after.split_once('}').expect("a closing brace");
        let time = match offset.split_at_checked(1) {
            Some(("-", seconds)) => now - Duration::from_secs(seconds.parse().expect("seconds")),
            Some((_, seconds)) => now + Duration::from_secs(seconds.parse().expect("seconds")),
            None => now,
        };
        out.push_str(&httpdate::fmt_http_date(time));
        rest = after;
    }
    out + rest
}

fn all_dated(fields: Fields, now: SystemTime) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), dated(value, now))).collect()
}

/// The progress of a row.
struct Progress {
    path: String,
    now: SystemTime,
    requests: usize,
    last_body: String,
}

fn run_step(client: &mut Connection, scripts: &Scripts, at: &mut Progress, step: &Step) -> Result<(), String> {
    let fields = all_dated(step.request, at.now);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    {
        let mut all = scripts.lock().expect("scripts");
        let script = all.entry(at.path.clone()).or_default();
        script.next = step.origin.map(|(status, fields, body)| {
            let own = if body.is_empty() { format!("{}-{}", at.path, at.requests + 1) } else { body.to_owned() };
            (status, all_dated(fields, at.now), own)
        });
    }
    let answer = client.ask(head(step.method, &format!("{}{}", at.path, step.path), &fields));
    let all = scripts.lock().expect("scripts");
    let script = all.get(&at.path).expect("a script");
    let asked = script.seen.len() - at.requests;
    at.requests = script.seen.len();
    let wanted = usize::from(matches!(step.way, Way::Fetch | Way::Validate));
    if asked != wanted {
        return Err(format!("the origin was asked {asked} times: {:?}", answer.headers));
    }
    if step.way == Way::Fetch && step.method != "HEAD" && !step.is_old {
        at.last_body = script.next.as_ref().map(|(_, _, body)| body.clone()).unwrap_or_default();
    }
    if let Some(seen) = script.seen.last().filter(|_| asked > 0) {
        check_asked(step, seen, at.now)?;
    }
    check_answer(step, &answer, at)
}

fn check_asked(step: &Step, seen: &Seen, now: SystemTime) -> Result<(), String> {
    let field = |name: &str| seen.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    if step.way == Way::Validate && field("if-none-match").is_none() && field("if-modified-since").is_none() {
        return Err("the origin was asked without a condition".to_owned());
    }
    for (name, value) in &step.asked {
        if field(name) != Some(dated(value, now).as_str()) {
            return Err(format!("the origin got {name}: {:?}", field(name)));
        }
    }
    match step.not_asked.iter().find(|name| field(name).is_some()) {
        Some(name) => Err(format!("the origin got {name}: {:?}", field(name))),
        None => Ok(()),
    }
}

fn check_answer(step: &Step, answer: &Answer, at: &Progress) -> Result<(), String> {
    if answer.status != step.status {
        return Err(format!("the status is {}: {:?}", answer.status, answer.headers));
    }
    let all = |name: &str| {
        let values = answer.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        values.collect::<Vec<_>>().join(", ")
    };
    for (name, value) in &step.has {
        let value = dated(value, at.now);
        let found = all(name);
        let fits = match value.strip_suffix('*') {
            Some(start) => found.starts_with(start),
            None => found == value,
        };
        if !fits {
            return Err(format!("{name} is {found:?}"));
        }
    }
    if let Some(name) = step.lacks.iter().find(|name| answer.header(name).is_some()) {
        return Err(format!("there is {name}: {:?}", answer.header(name)));
    }
    let is_bodiless = step.method == "HEAD" || matches!(answer.status, 204 | 304) || step.way == Way::Own;
    let wanted = match step.body {
        Some(body) => body,
        None if is_bodiless => return Ok(()),
        None => &at.last_body,
    };
    if answer.text() != wanted {
        return Err(format!("the body is {:?}, and not {wanted:?}", answer.text()));
    }
    Ok(())
}

fn run_row(address: SocketAddr, scripts: &Scripts, number: usize, row: &Row) -> Result<(), String> {
    let mut client = Connection::open(address);
    let path = format!("/{}/{number}", row.route);
    let mut at = Progress { path, now: SystemTime::now(), requests: 0, last_body: String::new() };
    for (index, step) in row.steps.iter().enumerate() {
        let done = run_step(&mut client, scripts, &mut at, step);
        done.map_err(|why| format!("{}\n    step {}: {why}", row.clause, index + 1))?;
    }
    Ok(())
}

/// The routes of rows: name and settings of the cache.
const ROUTES: &[(&str, &str)] = &[
    ("plain", "{}"),
    ("default", "{ttl: {default: 60s}}"),
    ("fixed", "{ttl: {override: 60s}}"),
    ("negative", "{ttl: {statuses: {404: 60s, 500-504: 60s}, heuristic: false}}"),
    ("most", "{ttl: {most: 10s}}"),
    ("noguess", "{ttl: {heuristic: false}}"),
    ("stale", "{stale: {while_revalidate: 60s, if_error: 600s}}"),
    ("error", "{stale: {if_error: 600s}}"),
    ("noquery", "{key: {query: none}}"),
    ("onlyquery", "{key: {query: {only: [page]}}}"),
    ("utm", "{key: {query: {without: ['utm_*']}, sort_query: true}}"),
    ("parts", "{key: {headers: [x-tenant], cookies: [lang]}}"),
    ("bypass", "{bypass: {headers: [x-debug], cookies: [session], when: 'request.query.fresh == \"1\"'}}"),
    ("cookies", "{set_cookie: remove}"),
    ("keep", "{set_cookie: keep}"),
    ("deaf", "{obey_clients: false}"),
    ("quiet", "{status_header: false, tags: {remove: false}}"),
    ("get", "{methods: [GET]}"),
    ("small", "{max_object: 64B}"),
    ("agents", "{ignore_vary: [user-agent]}"),
];

fn gateway(target: &Target) -> Gateway {
    let route = |(name, cache): &(&str, &str)| {
        format!(
            "- {{name: {name}, match: {{path: /{name}/*}}, filters: [{{cache: {cache}}}], action: {{forward: one}}}}\n"
        )
    };
    let routes: String = ROUTES.iter().map(route).collect();
    let upstreams = format!("upstreams: {{one: {{targets: [\"{}\"], retry: {{attempts: 1}}}}}}", target.address);
    Gateway::start(&format!("{upstreams}\nroutes:\n{routes}"))
}

/// The most rows at a time.
const WORKERS: usize = 12;

#[test]
fn every_clause() {
    let rows: Vec<Row> = super::caching_freshness::rows()
        .into_iter()
        .chain(super::caching_storing::rows())
        .chain(super::caching_requests::rows())
        .collect();
    assert!(rows.len() >= 150, "there are {} clauses", rows.len());
    let scripts = Scripts::default();
    let target = origin(Arc::clone(&scripts));
    let gateway = gateway(&target);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(number) else { return };
                    if let Err(why) = run_row(gateway.address(), &scripts, number, row) {
                        failures.lock().expect("failures").push(why);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("failures");
    let count = failures.len();
    assert!(failures.is_empty(), "{count} of {} clauses:\n{}\n{}", rows.len(), failures.join("\n"), gateway.log());
}
