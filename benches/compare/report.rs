//! From what was measured to a table (Markdown) and a plot (SVG).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::peers::{PEERS, Peer, SCENARIOS, Scenario};

struct Results {
    head: Value,
    rows: BTreeMap<(String, String), Value>,
    memory: BTreeMap<String, Value>,
}

fn read(file: &str) -> Results {
    let text = std::fs::read_to_string(file).expect("the results");
    let mut results = Results { head: Value::Null, rows: BTreeMap::new(), memory: BTreeMap::new() };
    for value in text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
        let word = |key: &str| value[key].as_str().map(str::to_owned);
        match (word("scenario"), word("peer"), word("memory")) {
            (Some(scenario), Some(peer), _) => _ = results.rows.insert((scenario, peer), value),
            (_, _, Some(peer)) => _ = results.memory.insert(peer, value),
            _ => results.head = value,
        }
    }
    results
}

impl Results {
    fn get(&self, scenario: Scenario, peer: Peer, key: &str) -> Option<f64> {
        self.rows.get(&(format!("{scenario:?}"), format!("{peer:?}")))?[key].as_f64()
    }

    /// Those that were measured.
    fn peers(&self) -> Vec<Peer> {
        let has = |peer: &Peer| self.rows.keys().any(|(_, p)| *p == format!("{peer:?}"));
        PEERS.into_iter().filter(has).collect()
    }

    fn table(&self, title: &str, cell: impl Fn(Scenario, Peer) -> Option<String>) -> String {
        let mut out = format!("| {title} |");
        let peers = self.peers();
        peers.iter().for_each(|p| _ = write!(out, " {} |", p.name()));
        out.push_str("\n|---|");
        peers.iter().for_each(|_| out.push_str("--:|"));
        for scenario in SCENARIOS {
            let _ = write!(out, "\n| {} |", scenario.name());
            peers.iter().for_each(|p| _ = write!(out, " {} |", cell(scenario, *p).unwrap_or_else(|| "–".to_owned())));
        }
        out + "\n"
    }
}

/// Prints the tables, and writes the plot beside the results.
pub fn table(file: &str) {
    let results = read(file);
    let head = &results.head;
    println!(
        "Measured {} at commit {} on {} cores of {} (Linux {}), {} rounds of {} s.\n",
        head["at"].as_str().unwrap_or("?"),
        head["commit"].as_str().unwrap_or("?"),
        head["cores"].as_str().unwrap_or("?"),
        head["cpu"].as_str().unwrap_or("?"),
        head["kernel"].as_str().unwrap_or("?"),
        head["rounds"],
        head["seconds"]
    );
    println!(
        "{}",
        results.table("CPU µs per request", |s, p| results.get(s, p, "cpu_us_median").map(|v| format!("{v:.1}")))
    );
    println!(
        "{}",
        results.table("requests/s of one core", |s, p| results.get(s, p, "rate").map(|v| format!("{v:.0}")))
    );
    println!(
        "{}",
        results.table("p50 / p99 / p99.9 in ms at half of that", |s, p| {
            let ms = |key| results.get(s, p, key).map(|v| v / 1e3);
            Some(format!("{:.1} / {:.1} / {:.1}", ms("p50_us")?, ms("p99_us")?, ms("p999_us")?))
        })
    );
    let mut memory = "| memory |".to_owned();
    let peers = results.peers();
    peers.iter().for_each(|p| _ = write!(memory, " {} |", p.name()));
    memory.push_str("\n|---|");
    peers.iter().for_each(|_| memory.push_str("--:|"));
    for (title, key, scale) in [
        ("idle after first requests, MiB", "empty_kib", 1024.0),
        ("10,000 idle connections, MiB", "full_kib", 1024.0),
        ("bytes per connection", "bytes_per_connection", 1.0),
    ] {
        let _ = write!(memory, "\n| {title} |");
        for peer in &peers {
            let value = results.memory.get(&format!("{peer:?}")).and_then(|m| m[key].as_f64());
            let _ = write!(
                memory,
                " {} |",
                value.map_or("–".to_owned(), |v| if scale > 1.0 {
                    format!("{:.1}", v / scale)
                } else {
                    format!("{v:.0}")
                })
            );
        }
    }
    println!("{memory}\n");
    println!("{}", bars(&results));
    let path = std::path::Path::new(file).with_extension("svg");
    std::fs::write(&path, plot(&results)).expect("the plot");
    eprintln!("the plot is in {}", path.display());
}

/// The aims, and what was measured, as it is usually built and with a profile.
fn bars(results: &Results) -> String {
    let peers = [Peer::Portcullis, Peer::Profiled];
    let all: Vec<Vec<(String, Option<f64>, f64)>> = peers.iter().map(|own| ratios(results, *own)).collect();
    let mut out = "| CPU time, Portcullis to | aim | as built by cargo | with PGO |\n|---|--:|--:|--:|\n".to_owned();
    for (usual, profiled) in all[0].iter().zip(&all[1]) {
        let (name, _, aim) = usual;
        let cell = |value: Option<f64>| match value {
            Some(value) => format!("{value:.2}, {}", if value <= *aim { "met" } else { "missed" }),
            None => "–".to_owned(),
        };
        if usual.1.is_some() || profiled.1.is_some() {
            let _ = writeln!(out, "| {name} | ≤ {aim} | {} | {} |", cell(usual.1), cell(profiled.1));
        }
    }
    out
}

fn ratios(results: &Results, own: Peer) -> Vec<(String, Option<f64>, f64)> {
    use Peer::{Bare, Caddy, Envoy, Haproxy, Nginx, Traefik};
    let cpu = |s: Scenario, p: Peer| results.get(s, p, "cpu_us_median");
    let divided = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a / b);
    let ratio = |s: Scenario, p: Peer| divided(cpu(s, own), cpu(s, p));
    let memory = |p: Peer| results.memory.get(&format!("{p:?}")).and_then(|m| m["bytes_per_connection"].as_f64());
    let strip = cpu(Scenario::Strip, own).zip(cpu(Scenario::Json, own)).map(|(a, b)| a - b);
    let rows = [
        ("bare Pingora, plain", ratio(Scenario::Plain, Bare), 1.05),
        (
            "bare Pingora, JWT, limit and 1,000 routes",
            divided(cpu(Scenario::Full, own), cpu(Scenario::Plain, Bare)),
            1.35,
        ),
        ("Envoy, plain", ratio(Scenario::Plain, Envoy), 0.55),
        ("Traefik, plain", ratio(Scenario::Plain, Traefik), 0.45),
        ("Caddy, plain", ratio(Scenario::Plain, Caddy), 0.45),
        ("HAProxy, plain", ratio(Scenario::Plain, Haproxy), 1.5),
        ("HAProxy, JWT + rate limit", ratio(Scenario::Jwt, Haproxy), 0.75),
        ("Envoy, JWT + rate limit", ratio(Scenario::Jwt, Envoy), 0.45),
        ("itself with one route, 1,000 routes", divided(cpu(Scenario::Routes, own), cpu(Scenario::Plain, own)), 1.03),
        ("nginx, TLS keep-alive", ratio(Scenario::Tls, Nginx), 1.3),
        ("nginx, memory per idle connection", divided(memory(own), memory(Nginx)), 2.0),
        ("an answer of JSON as it is, stripped: µs more", strip, 8.0),
    ];
    rows.into_iter().map(|(name, value, aim)| (name.to_owned(), value, aim)).collect()
}

const COLOURS: [&str; 8] = ["#9e9e9e", "#1565c0", "#64b5f6", "#2e7d32", "#6a1b9a", "#d84315", "#00838f", "#f9a825"];

/// Bars of CPU time, shorter is better; each scenario has a scale of its own.
fn plot(results: &Results) -> String {
    let (left, width, bar) = (150.0, 520.0, 15.0);
    let mut body = String::new();
    let mut y = 50.0;
    for scenario in SCENARIOS {
        let values: Vec<(usize, f64)> = PEERS
            .iter()
            .enumerate()
            .filter_map(|(i, p)| Some((i, results.get(scenario, *p, "cpu_us_median")?)))
            .collect();
        let most = values.iter().map(|(_, v)| *v).fold(0.0, f64::max);
        if most == 0.0 {
            continue;
        }
        let _ = writeln!(body, "<text x=\"10\" y=\"{}\" class=\"s\">{}</text>", y + 12.0, scenario.name());
        for (index, value) in values {
            let length = width * value / most;
            let _ = writeln!(
                body,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>",
                bar - 3.0,
                COLOURS[index]
            );
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{}\">{} {value:.1}</text>",
                left + length + 5.0,
                y + 10.0,
                PEERS[index].name()
            );
            y += bar;
        }
        y += 12.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<style>.t{{font-size:15px;font-weight:bold}}.s{{font-weight:bold}}</style>\n<text x=\"10\" y=\"24\" class=\"t\">CPU µs per request at a fixed rate, one core: shorter is better</text>\n{body}</svg>\n"
    )
}
