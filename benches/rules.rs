//! Criterion benchmarks of the rules: routing, balance, limits, payloads.
//!
//! `cargo bench --bench rules`

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use portcullis::parts::{
    Algorithm, BodySchema, Buckets, EntryOperation, Ewma, Loads, PickInput, Predicates, RequestFacts, RouteEntry,
    RouteMatch, Router, Seat, Window, WindowKind, Windows, hash_key,
};
use portcullis::parts::{BodyTemplate, OutputForm, json_value};
use portcullis::parts::{
    Coding, CompressionLevel, Editor, Encoder, Fields, Hashes, MaskText, Masks, Renames, SetPaths, SetValues, Step,
    Stripper,
};
use portcullis::parts::{Expression, Fact, FactKind, Facts, Members, Networks};

/// Paths in the shape of the GitHub REST API, as many as are asked for.
fn paths(count: usize) -> Vec<String> {
    const SHAPES: &[&str] = &[
        "/repos/{owner}/{repo}/KIND",
        "/repos/{owner}/{repo}/KIND/{id}",
        "/repos/{owner}/{repo}/KIND/{id}/comments",
        "/orgs/{org}/KIND",
        "/orgs/{org}/KIND/{id}",
        "/users/{user}/KIND",
        "/user/KIND/{id}",
        "/KIND/{id}/*",
        "/gists/{id}/KIND",
        "/enterprises/{enterprise}/KIND/{id}/members/{member}",
    ];
    (0..count).map(|i| SHAPES[i % SHAPES.len()].replace("KIND", &format!("kind{}", i / SHAPES.len()))).collect()
}

fn router(count: usize) -> Router {
    let predicates = Arc::new(Predicates::default());
    let entry = |(route, path): (usize, String)| RouteEntry {
        host: "*".parse().expect("a host"),
        path: path.parse().expect("a path"),
        predicates: Arc::clone(&predicates),
        route,
        operation: EntryOperation::None,
    };
    Router::new(paths(count).into_iter().enumerate().map(entry).collect())
}

fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10, 1_000, 100_000] {
        let router = router(count);
        let kind = (count / 10) / 2;
        let path = format!("/repos/rust-lang/cargo/kind{kind}/17/comments");
        let headers = HeaderMap::new();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let question = RequestFacts {
            host: "api.example.com",
            path: &path,
            query: None,
            method: &Method::GET,
            headers: &headers,
            client,
        };
        assert!(matches!(router.find(&question), RouteMatch::Found(_)));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| black_box(router.find(black_box(&question))));
        });
    }
    group.finish();
    criterion.bench_function("build a router of 10,000 routes", |b| b.iter(|| router(10_000)));
}

/// What targets do, as the gateway counts it.
struct Counted(Vec<(AtomicU32, Ewma)>);

impl Counted {
    fn new(count: u32) -> Self {
        Self((0..count).map(|i| (AtomicU32::new(i % 7), Ewma::new(0))).collect())
    }
}

impl Loads for Counted {
    fn active(&self, index: usize) -> u32 {
        self.0[index].0.load(Ordering::Relaxed)
    }

    fn latency(&self, index: usize) -> f64 {
        self.0[index].1.read(1_000)
    }

    fn total(&self) -> u32 {
        100
    }
}

fn balance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (name, algorithm) in [
        ("round_robin", Algorithm::RoundRobin),
        ("least_connections", Algorithm::LeastConnections),
        ("least_response_time", Algorithm::LeastResponseTime),
        ("random", Algorithm::Random),
        ("power_of_two", Algorithm::PowerOfTwo),
        ("ring", Algorithm::Ring { load_factor: 0 }),
        ("ring, bounded", Algorithm::Ring { load_factor: 150 }),
        ("maglev", Algorithm::Maglev { load_factor: 0 }),
        ("maglev, bounded", Algorithm::Maglev { load_factor: 150 }),
    ] {
        for count in [10_u32, 10_000] {
            let seat = |i: u32| Seat::new(hash_key(&i.to_le_bytes()), 1 + i % 5);
            let balance = algorithm.build(&(0..count).map(seat).collect::<Vec<_>>());
            let loads = Counted::new(count);
            let mut random = 7_u64;
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let input = PickInput { key: Some(random), random, loads: &loads, tried: &[] };
                    black_box(balance.pick(black_box(&input)))
                });
            });
        }
    }
    group.finish();
}

fn windows(rates: &[(u32, u64)]) -> Arc<Windows> {
    let window = |(count, seconds): &(u32, u64)| {
        Window::new(WindowKind::Gcra, *count, std::time::Duration::from_secs(*seconds), None)
    };
    Arc::new(rates.iter().map(window).collect::<Vec<_>>().into())
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let (one, two) = (windows(&[(1_000_000, 1)]), windows(&[(1_000_000, 1), (1_000_000_000, 3_600)]));
    for (name, windows, keys) in [
        ("1 window", &one, 100_u64),
        ("1 window", &one, 1_000_000),
        ("2 windows", &two, 100),
        ("2 windows", &two, 1_000_000),
    ] {
        let buckets = Buckets::default();
        let mut now: u64 = 1_000_000_000_000;
        let key = |now: u64| (now / 1_000).wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        (0..keys).for_each(|key| _ = buckets.admit(windows, &key.to_be_bytes(), 1, now));
        group.bench_function(BenchmarkId::new(name, keys), |b| {
            b.iter(|| {
                now += 1_000;
                black_box(buckets.admit(windows, &key(now).to_be_bytes(), 1, now))
            });
        });
    }
    group.finish();
}

fn payload(criterion: &mut Criterion) {
    let paths: Vec<_> = ["ssn", "**.internal"].iter().map(|p| p.parse().expect("a field")).collect();
    let fields = Fields::new(&paths).expect("few steps");
    let item = r#"{"id":1,"title":"a title of some length","internal":{"cost":7}}"#;
    let document = format!(r#"{{"id":42,"name":"Ada","ssn":"078-05-1120","items":[{}]}}"#, vec![item; 14].join(","));
    criterion.bench_function("strip 1 KB of JSON", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(document.len());
            let mut stripper = Stripper::new(&fields);
            stripper.push(black_box(document.as_bytes()), true, &mut out).expect("shallow");
            out
        });
    });
    let renames = Renames::new(&[("**.title".parse().expect("a field"), "name")]).expect("few steps");
    criterion.bench_function("rename in 1 KB of JSON", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(document.len());
            Editor::new(&renames).push(black_box(document.as_bytes()), true, &mut out).expect("shallow");
            out
        });
    });
    let mask = MaskText::of_text("***", 4).expect("a mask");
    let masks = Masks::new(&[("**.title".parse().expect("a field"), mask)]).expect("few steps");
    criterion.bench_function("mask in 1 KB of JSON", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(document.len());
            Editor::new(&masks).push(black_box(document.as_bytes()), true, &mut out).expect("shallow");
            out
        });
    });
    let path = || vec!["**.title".parse().expect("a field"), "note".parse().expect("a field")];
    let hashes = Hashes::new(&path(), Some(b"key")).expect("few steps");
    criterion.bench_function("hash in 1 KB of JSON", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(2 * document.len());
            Editor::new(&hashes).push(black_box(document.as_bytes()), true, &mut out).expect("shallow");
            out
        });
    });
    let value = Some(bytes::Bytes::from_static(b"{\"a\":1}"));
    let paths = Arc::new(SetPaths::new(&path(), false).expect("few steps"));
    let values = SetValues::new(paths, vec![value.clone(), value]);
    criterion.bench_function("set in 1 KB of JSON", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(document.len());
            Editor::new(&values).push(black_box(document.as_bytes()), true, &mut out).expect("shallow");
            out
        });
    });
    let source = r#"{"n": {{ body.name }}, "titles": [{% for i in body.items %}{{ i.title }}{% if not loop.last %},{% endif %}{% endfor %}]}"#;
    let template = BodyTemplate::new(source, OutputForm::Json, &["body"]).expect("a template");
    criterion.bench_function("template over 1 KB of JSON", |b| {
        b.iter(|| {
            let body = json_value(black_box(document.as_bytes())).expect("JSON");
            template.render([("body", body)].into_iter().collect()).expect("JSON")
        });
    });
    for coding in Coding::ALL {
        criterion.bench_function(&format!("encode 1 KB of JSON, {}", coding.name()), |b| {
            b.iter(|| {
                let mut out = Vec::with_capacity(document.len());
                let mut encoder = Encoder::new(coding, CompressionLevel::Balanced, false).expect("memory");
                encoder.push(black_box(document.as_bytes()), true, &mut out).expect("encodes");
                out
            });
        });
    }
}

/// Look-ups of an address in lists of networks, and the reading of a list of a million.
fn networks(criterion: &mut Criterion) {
    let list = |count: u32| -> String {
        let mut random = 7_u32;
        let lines = (0..count).map(|_| {
            random = random.wrapping_mul(0x2c92_77b5).wrapping_add(0xac56_4b05);
            format!("{}/{}\n", Ipv4Addr::from(random), 24 + random % 9)
        });
        lines.collect()
    };
    let mut group = criterion.benchmark_group("address in a list of networks");
    for count in [1, 1_000, 1_000_000] {
        let set = Networks::parse(list(count).as_bytes()).expect("a list");
        println!("{count} networks are {} ranges and take {} bytes", set.range_count(), set.bytes());
        let mut random = 9_u32;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                random = random.wrapping_mul(0x2c92_77b5).wrapping_add(0xac56_4b05);
                black_box(set.contains(black_box(IpAddr::V4(random.into()))))
            });
        });
    }
    group.sample_size(10);
    let million = list(1_000_000);
    group
        .bench_function("read 1,000,000 networks", |b| b.iter(|| Networks::parse(million.as_bytes()).expect("a list")));
    group.finish();
}

/// The facts that a condition reads.
#[derive(Debug)]
struct Request;

impl Members for Request {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok((name == "x-tenant").then(|| Fact::Text("acme".into())))
    }
}

impl Facts for Request {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        Some(match name {
            "request.method" => Fact::Text("GET".into()),
            "request.path" => Fact::Text("/orders/4711/items".into()),
            "request.headers" => Fact::Members(self),
            "identity.groups" => Fact::Texts(vec!["staff".into(), "admins".into(), "editors".into()]),
            _ => return None,
        })
    }
}

fn conditions(criterion: &mut Criterion) {
    let known = [
        ("request.method", FactKind::Single),
        ("request.path", FactKind::Single),
        ("request.headers", FactKind::Map),
        ("identity.groups", FactKind::List),
    ];
    let mut group = criterion.benchmark_group("condition");
    for (name, source) in [
        ("one comparison", "request.method == 'GET'"),
        ("a header and a group", "request.headers['x-tenant'] == 'acme' && 'admins' in identity.groups"),
        ("a pattern", "request.path.matches('^/orders/[0-9]+/items$')"),
        ("a loop over three groups", "identity.groups.exists(group, group.startsWith('edit'))"),
    ] {
        let expression = Expression::compile(source, &known).expect("a condition");
        assert_eq!(expression.holds(&Request), Ok(true));
        group.bench_function(name, |b| b.iter(|| black_box(expression.holds(black_box(&Request)))));
    }
    group.finish();
}

/// From the text of 10,000 routes to what serves them.
fn configuration(criterion: &mut Criterion) {
    let routes: String = paths(10_000)
        .iter()
        .enumerate()
        .map(|(i, path)| {
            format!(
                "  - {{name: r{i}, match: {{path: \"{path}\"}}, filters: [{{rate_limit: {{limit: 100/s}}}}], action: {{forward: one}}}}\n"
            )
        })
        .collect();
    let text = format!(
        "listeners: [{{name: main, address: 127.0.0.1:0}}]\nupstreams: {{one: {{targets: ['127.0.0.1:1']}}}}\nroutes:\n{routes}"
    );
    let load = || {
        portcullis::parts::Configuration::read(&text, std::path::Path::new("."))
            .unwrap_or_else(|errors| panic!("{errors:?}"))
    };
    let loaded = load();
    let mut group = criterion.benchmark_group("10,000 routes");
    group.sample_size(10);
    group.bench_function("read", |b| b.iter(load));
    group.bench_function("compile", |b| b.iter(|| loaded.compile().expect("fine")));
    group.finish();
}

/// A body of 2 KiB is parsed and validated.
fn schema(criterion: &mut Criterion) {
    let item = serde_json::json!({
        "type": "object",
        "required": ["id", "name", "price", "tags"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "name": {"type": "string", "minLength": 1, "maxLength": 80, "pattern": "^[A-Za-z ]+$"},
            "price": {"type": "number", "exclusiveMinimum": 0},
            "tags": {"type": "array", "items": {"enum": ["new", "sale", "used"]}, "maxItems": 3},
            "owner": {
                "type": "object",
                "required": ["mail"],
                "properties": {"mail": {"type": "string", "format": "email"}}
            }
        }
    });
    let schema = BodySchema::new(serde_json::json!({
        "type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": item}}
    }));
    let schema = schema.expect("a schema");
    let item = |id: usize| {
        format!(
            r#"{{"id":{},"name":"A thing","price":12.5,"tags":["new","sale"],"owner":{{"mail":"ada@example.com"}}}}"#,
            id + 1
        )
    };
    let items: Vec<String> = (0..)
        .map(item)
        .scan(0, |sum, item| {
            *sum += item.len() + 1;
            (*sum < 2_048).then_some(item)
        })
        .collect();
    let body = format!("{{\"items\":[{}]}}", items.join(","));
    assert!(schema.accepts(body.as_bytes()) && !schema.accepts(body.replace("new", "old").as_bytes()));
    criterion.bench_function("schema/2KiB", |bencher| {
        bencher.iter(|| black_box(schema.accepts(black_box(body.as_bytes()))));
    });
}

criterion_group!(benches, schema, routing, balance, networks, conditions, limits, payload, configuration);
criterion_main!(benches);
