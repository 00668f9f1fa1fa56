//! Zones: where requests go, where they go when targets fail, and what is said and counted about it.

use std::net::TcpListener;
use std::process::Command;

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway};
use super::harness::target::{Target, answer};

/// A target in the zone of that number, on an address of it, whose response says where it is.
fn target(zone: u8, number: u8) -> Target {
    let name: &'static str = ["a", "b", "c"][usize::from(zone)];
    let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 10 + zone, number), 0)).expect("a free port");
    Target::on(listener, move |stream, _| answer(stream, 200, &[("x-zone", name)], &[b'z'; 1000]))
}

fn config(targets: &[(&Target, &str)], process: &str, upstream: &str) -> String {
    let targets: Vec<String> =
        targets.iter().map(|(target, zone)| format!("{{address: \"{}\", zone: {zone}}}", target.address)).collect();
    format!(
        "upstreams: {{pool: {{targets: [{}], {upstream}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]\n\
         process: {{threads: 2, {process}}}\n",
        targets.join(", ")
    )
}

/// The number of responses from each zone.
fn of_zones(gateway: &Gateway, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut connection = client::Connection::open(gateway.address());
    for _ in 0..requests {
        connection.send(client::head("GET", "/", &[]));
        let answer = connection.receive();
        let zone = answer.header("x-zone").expect("a zone").as_bytes()[0] - b'a';
        counts[usize::from(zone)] += 1;
    }
    counts
}

/// The share of each group of zones, as operators see it.
fn shares(gateway: &Gateway) -> Vec<(String, f64)> {
    let view = client::get(gateway.admin, "/upstreams").json();
    let shares = view[0]["shares"].as_array().expect("shares").iter();
    let zones = |share: &serde_json::Value| {
        share["zones"].as_array().expect("zones").iter().map(|z| z.as_str().expect("a name").to_owned()).collect()
    };
    shares
        .map(|share| (zones(share), share["percent"].as_f64().expect("a number")))
        .map(|(zones, percent): (Vec<String>, f64)| (zones.join("+"), percent))
        .collect()
}

fn drain(gateway: &Gateway, target: &Target, draining: bool) {
    let path = format!("/upstreams/pool/targets/{}", target.address);
    let body = format!("{{\"draining\": {draining}}}");
    let mut connection = client::Connection::open(gateway.admin);
    let length = body.len().to_string();
    connection.send([client::head("PATCH", &path, &[("content-length", &length)]), body].concat());
    assert_eq!(connection.receive().status, 200);
}

#[test]
fn a_request_stays_in_its_zone_and_spills_over_in_the_order_of_the_list() {
    let all = [target(0, 1), target(0, 2), target(1, 1), target(2, 1)];
    let zoned: Vec<_> = all.iter().zip(["a", "a", "b", "c"]).collect();
    let gateway = Gateway::start(&config(&zoned, "zone: a", "zones: {spill_over: [c]}"));
    assert_eq!(of_zones(&gateway, 20), [20, 0, 0]);
    assert_eq!(shares(&gateway), [("a".into(), 100.0), ("c".into(), 0.0), ("b".into(), 0.0)]);
    drain(&gateway, &all[0], true);
    drain(&gateway, &all[1], true);
    assert_eq!(of_zones(&gateway, 20), [0, 0, 20]);
    drain(&gateway, &all[3], true);
    assert_eq!(of_zones(&gateway, 20), [0, 20, 0]);
    drain(&gateway, &all[0], false);
    assert_eq!(of_zones(&gateway, 20), [20, 0, 0]);
    // Requests and bytes by zone; a connection to another zone has crossed.
    let count = |of: &str| gateway.metric(&format!("portcullis_upstream_zone_{of},upstream=\"pool\",zone=\"c\"}}"));
    assert!((count("requests_total{own=\"false\"") - 20.0).abs() < 0.5);
    assert!((count("bytes_total{direction=\"received\",own=\"false\"") - 20_000.0).abs() < 0.5);
    let own = gateway.metric("portcullis_upstream_zone_requests_total{own=\"true\",upstream=\"pool\",zone=\"a\"}");
    assert!((own - 40.0).abs() < 0.5, "{own}");
}

#[test]
fn a_zone_that_fails_its_probes_gives_its_load_away_and_gets_it_back() {
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let probed = std::sync::Arc::clone(&up);
    let listener = TcpListener::bind("127.0.10.1:0").expect("a free port");
    let near = Target::on(listener, move |stream, seen| {
        let fails = seen.target == "/healthz" && !probed.load(std::sync::atomic::Ordering::Acquire);
        answer(stream, if fails { 500 } else { 200 }, &[("x-zone", "a")], b"")
    });
    let far = target(1, 1);
    let health = "health: {active: {path: /healthz, interval: 50ms, fall: 2, rise: 2}, slow_start: {window: 1s}}";
    let gateway = Gateway::start(&config(&[(&near, "a"), (&far, "b")], "zone: a", health));
    assert_eq!(shares(&gateway), [("a".into(), 100.0), ("b".into(), 0.0)]);
    up.store(false, std::sync::atomic::Ordering::Release);
    eventually("the load is given away", || shares(&gateway) == [("a".into(), 0.0), ("b".into(), 100.0)]);
    assert_eq!(of_zones(&gateway, 10), [0, 10, 0]);
    up.store(true, std::sync::atomic::Ordering::Release);
    // With its slow start it counts by a part of its weight at first, and its share only grows.
    let (mut last, mut steps) = (0.0, 0);
    eventually("the load is back", || {
        let present = shares(&gateway)[0].1;
        assert!(present >= last, "{present} after {last}");
        steps += usize::from(present > last && present < 100.0);
        last = present;
        present > 99.9
    });
    assert!(steps > 0, "the whole load came back at once");
    assert_eq!(of_zones(&gateway, 10), [10, 0, 0]);
}

#[test]
fn the_gateways_of_all_zones_load_every_target_alike() {
    // Two gateways and one target in a, one gateway and two targets in b.
    let all = [target(0, 1), target(1, 1), target(1, 2)];
    let zoned: Vec<_> = all.iter().zip(["a", "b", "b"]).collect();
    let in_zone = |zone: &str| {
        let process = format!("zone: {zone}, gateways: {{a: 2, b: 1}}");
        Gateway::start(&config(&zoned, &process, "zones: {aware: {min_targets: 3}}"))
    };
    let (a, b) = (in_zone("a"), in_zone("b"));
    assert_eq!(shares(&a), [("a".into(), 50.0), ("b".into(), 50.0)]);
    assert_eq!(shares(&b), [("b".into(), 100.0), ("a".into(), 0.0)]);
    let of_a = of_zones(&a, 400);
    assert!((150..250).contains(&of_a[0]) && of_a[0] + of_a[1] == 400, "{of_a:?}");
    assert_eq!(of_zones(&b, 50), [0, 50, 0]);
    // With fewer targets than that zones are ignored.
    drain(&a, &all[2], true);
    assert_eq!(shares(&a), [("a+b".into(), 100.0)]);
}

#[test]
fn zones_share_the_load_by_weight() {
    let all = [target(0, 1), target(1, 1), target(2, 1)];
    let zoned: Vec<_> = all.iter().zip(["a", "b", "c"]).collect();
    let gateway = Gateway::start(&config(&zoned, "drain_time: 1s", "zones: {weights: {a: 3, b: 1, c: 0}}"));
    assert_eq!(shares(&gateway), [("a".into(), 75.0), ("b".into(), 25.0), ("c".into(), 0.0)]);
    let counts = of_zones(&gateway, 400);
    assert!((250..350).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    drain(&gateway, &all[0], true);
    drain(&gateway, &all[1], true);
    assert_eq!(of_zones(&gateway, 10), [0, 0, 10]);
    let ignored = Gateway::start(&config(&zoned, "zone: a", "zones: ignore"));
    assert_eq!(shares(&ignored), [("a+b+c".into(), 100.0)]);
    assert_eq!(of_zones(&ignored, 30), [10, 10, 10]);
}

#[test]
fn the_example_serves_each_zone_with_one_file() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/zones.yaml");
    for (zone, right) in [("eu-1", true), ("eu-2", true), ("us-1", true), ("eu-9", false)] {
        let checked =
            Command::new(BINARY).args(["check", "-c", example]).env("ZONE", zone).output().expect("the binary");
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.success(), right, "{told}");
        assert!(right || told.contains("gateways: expected at least one gateway in"), "{told}");
    }
}
