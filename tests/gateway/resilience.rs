//! Under load: a target is killed, one fails often, one is overloaded, one speaks gRPC.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::harness::client::{Connection, get, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer, refused};

/// A process that answers everything, and can be killed.
fn process() -> Gateway {
    Gateway::start("routes: [{name: all, action: {respond: {body: fine}}}]")
}

/// Sends `method` requests at 2,000 a second over eight connections until told to stop; counts answers
/// of 200, others, and connections that broke.
fn load(gateway: &Gateway, method: &str, stop: &AtomicBool, counts: &[AtomicUsize; 3]) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                let mut next = Instant::now();
                let request = head(method, "/", if method == "POST" { &[("content-length", "1")] } else { &[] });
                let request = if method == "POST" { request + "x" } else { request };
                while !stop.load(Ordering::Acquire) {
                    connection.send(&request);
                    match connection.try_receive(false) {
                        Ok(answer) => {
                            if answer.header("connection") == Some("close") {
                                connection = Connection::open(gateway.address());
                            }
                            counts[usize::from(answer.status != 200)].fetch_add(1, Ordering::Relaxed)
                        }
                        Err(_) => {
                            connection = Connection::open(gateway.address());
                            counts[2].fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    next += Duration::from_millis(4);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
    });
}

fn killed_under(method: &str) -> [usize; 3] {
    let mut targets = [process(), process(), process()];
    let addresses: Vec<String> = targets.iter().map(|t| format!("\"{}\"", t.address())).collect();
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [{}], health: {{active: {{interval: 200ms, fall: 2}}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        addresses.join(", ")
    ));
    let (stop, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    std::thread::scope(|scope| {
        scope.spawn(|| load(&gateway, method, &stop, &counts));
        eventually("there is traffic", || counts[0].load(Ordering::Relaxed) > 1_000);
        targets[0].child.kill().expect("killed");
        let before = counts[0].load(Ordering::Relaxed);
        eventually("the others go on", || counts[0].load(Ordering::Relaxed) > before + 2_000);
        stop.store(true, Ordering::Release);
    });
    counts.map(AtomicUsize::into_inner)
}

#[test]
fn a_killed_target_costs_no_get() {
    let [fine, wrong, broken] = killed_under("GET");
    assert_eq!((wrong, broken), (0, 0), "beside {fine} that were answered");
}

#[test]
fn a_killed_target_costs_only_the_posts_that_it_had() {
    let [fine, wrong, broken] = killed_under("POST");
    assert_eq!(broken, 0);
    // Eight clients: each may have one on its way, and meet one more connection of which the end is not known yet.
    assert!(wrong <= 16, "{wrong} of {fine}: more than the connections that there were");
}

#[test]
fn who_fails_often_is_out_for_a_time_and_never_more_than_the_share() {
    let (flaky, one, two) =
        (Target::named("flaky 30", "flaky"), Target::named("echo", "one"), Target::named("echo", "two"));
    let also = Target::named("flaky 30", "also");
    let addresses: Vec<String> = [&flaky, &one, &two, &also].iter().map(|t| format!("\"{}\"", t.address)).collect();
    let passive = "passive: {failures: 0, gateway_failures: 0, interval: 1s, ejection: 2s, max_ejection: 2s, max_ejected: 25, failure_percentage: {percent: 20, min_targets: 3, min_requests: 10}}";
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [{}], retry: {{attempts: 1}}, health: {{{passive}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        addresses.join(", ")
    ));
    let ejected = || {
        let targets = get(gateway.admin, "/upstreams").json()[0]["targets"].clone();
        let out = targets.as_array().expect("targets").iter().filter(|t| t["ejected"].is_object()).count();
        assert!(out <= 1, "more than a quarter: {targets}");
        out
    };
    let ask = || (0..40).for_each(|_| drop(gateway.get("/")));
    for _ in 0..2 {
        eventually("one is out", || {
            ask();
            ejected() == 1
        });
        eventually("it is back", || ejected() == 0);
    }
    let failures = gateway.metric("portcullis_target_ejections_total{reason=\"failure_percentage\",upstream=\"pool\"}");
    assert!(failures >= 2.0, "{failures}");
}

#[test]
fn an_overloaded_upstream_sheds_and_stays_fast() {
    // Ten at a time, 40 ms each; more wait.
    let (working, waiting) = (std::sync::Mutex::new(0), std::sync::Condvar::new());
    let target = Target::new(move |stream, _| {
        let mut count = waiting.wait_while(working.lock().expect("the count"), |c| *c >= 10).expect("the count");
        *count += 1;
        drop(count);
        std::thread::sleep(Duration::from_millis(40));
        *working.lock().expect("the count") -= 1;
        waiting.notify_one();
        answer(stream, 200, &[], b"")
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"], limits: {{adaptive: {{min: 4, max: 500}}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    // Requests a second for that long: the 99th percentile of what was accepted, and what was refused.
    let run = |per_second: u64, time: Duration| {
        let (accepted, refused) = (std::sync::Mutex::new(Vec::new()), AtomicUsize::new(0));
        let clients = per_second / 10;
        let end = Instant::now() + time;
        std::thread::scope(|scope| {
            for client in 0..clients {
                let (accepted, refused, gateway) = (&accepted, &refused, &gateway);
                scope.spawn(move || {
                    let mut connection = Connection::open(gateway.address());
                    let mut next = Instant::now() + Duration::from_micros(client * 100_000 / clients);
                    while next < end {
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                        let begun = Instant::now();
                        let answer = connection.ask(head("GET", "/", &[]));
                        if answer.status == 200 {
                            accepted.lock().expect("times").push(begun.elapsed());
                        } else {
                            assert_eq!((answer.status, answer.reason().as_str()), (503, "overloaded"));
                            assert!(answer.header("retry-after").is_some());
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        next = (next + Duration::from_millis(100)).max(Instant::now());
                    }
                });
            }
        });
        let mut times = accepted.into_inner().expect("times");
        times.sort_unstable();
        let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
        (p99, times.len(), refused.into_inner())
    };
    let (calm, _, _) = run(50, Duration::from_secs(2));
    // It finds its limit within the first second; then the step is measured.
    run(1_250, Duration::from_secs(1));
    let (busy, accepted, refused) = run(1_250, Duration::from_secs(4));
    assert!(refused > accepted, "{accepted} were accepted, {refused} were not");
    assert!(accepted > 500, "{accepted}: less than half of what the target can do");
    // Without the limit it would be two seconds. Other tests run beside this one.
    assert!(busy < calm * 6, "{busy:?} under load, {calm:?} without");
    let (after, _, refused) = run(50, Duration::from_secs(2));
    assert_eq!(refused, 0);
    assert!(after < calm * 6, "{after:?} afterwards, {calm:?} before");
}

#[test]
fn a_query_of_death_is_not_multiplied() {
    // Answers, until it is asked for what kills it.
    let targets: Vec<Target> = (0..2)
        .map(|_| {
            Target::new(|stream, seen| match seen.target.as_str() {
                "/die" => Err(std::io::ErrorKind::ConnectionAborted.into()),
                _ => answer(stream, 200, &[], b""),
            })
        })
        .collect();
    let addresses: Vec<String> = targets.iter().map(|t| format!("\"{}\"", t.address)).collect();
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [{}], retry: {{attempts: 1}}, breaker: {{failures: 1, cool_down: 1h}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        addresses.join(", ")
    ));
    // Many kept connections, each of which could look stale.
    std::thread::scope(|scope| {
        (0..20).for_each(|_| _ = scope.spawn(|| assert_eq!(gateway.get("/").status, 200)));
    });
    let before: usize = targets.iter().map(Target::count).sum();
    assert_eq!(gateway.get("/die").status, 502);
    let sent = targets.iter().map(Target::count).sum::<usize>() - before;
    assert!(sent <= 2, "it was sent {sent} times");
    assert_eq!(gateway.get("/").reason(), "breaker_open", "the breaker was not told");
}

#[test]
fn who_leaves_the_queue_is_not_forwarded() {
    let target = Target::named("echo", "a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"], limits: {{requests: 1, pending: 1, pending_time: 20s}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    let mut first = Connection::open(gateway.address());
    first.send(head("GET", "/hold", &[]));
    eventually("the target has it", || target.count() == 1);
    let mut left = Connection::open(gateway.address());
    left.send(head("POST", "/left", &[("content-length", "1")]) + "x");
    let pending = || gateway.metric("portcullis_upstream_requests_pending{upstream=\"pool\"}");
    eventually("it waits", || pending() > 0.5);
    drop(left);
    eventually("its place is free", || pending() < 0.5);
    target.release();
    assert_eq!(first.receive().status, 200);
    assert_eq!(gateway.get("/next").status, 200);
    assert_eq!(target.count(), 2, "what nobody waited for was forwarded");
}

#[test]
fn a_reload_without_passive_health_ends_ejections() {
    let (bad, good) = (Target::named("500", "bad"), Target::named("echo", "good"));
    let config = |health: &str| {
        format!(
            "upstreams: {{pool: {{targets: [\"{}\", \"{}\"], retry: {{attempts: 1}}{health}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
            bad.address, good.address
        )
    };
    let gateway =
        Gateway::start(&config(", health: {passive: {failures: 2, ejection: 1h, max_ejection: 1h, max_ejected: 50}}"));
    eventually("it is out", || {
        gateway.get("/");
        get(gateway.admin, "/upstreams").text().contains("consecutive_failures")
    });
    bad.become_("echo");
    gateway.write_config(&config(""));
    assert_eq!(gateway.reload().status, 200);
    eventually("it is back", || (0..4).any(|_| gateway.get("/").header("x-target") == Some("bad")));
}

#[test]
fn a_breaker_stands_where_it_stood_when_its_settings_change() {
    let (_held, dead) = refused();
    let yaml = |settings: &str| {
        format!(
            "upstreams:
  whole: {{targets: [\"{dead}\"], retry: {{attempts: 1}}, breaker: {{{settings}}}}}
  each: {{targets: [\"{dead}\"], retry: {{attempts: 1}}, target_breaker: {{{settings}}}}}
routes: [{{name: each, match: {{path: /each}}, action: {{forward: each}}}}, {{name: whole, action: {{forward: whole}}}}]"
        )
    };
    let gateway = Gateway::start(&yaml("failures: 3, cool_down: 1h"));
    for path in ["/whole", "/each"] {
        (0..2).for_each(|_| assert_eq!(gateway.get(path).reason(), "connect_refused"));
    }
    gateway.write_config(&yaml("failures: 4, cool_down: 1h"));
    assert_eq!(gateway.reload().status, 200);
    for path in ["/whole", "/each"] {
        (0..2).for_each(|_| assert_eq!(gateway.get(path).reason(), "connect_refused", "two of four were before"));
        assert_eq!(gateway.get(path).reason(), "breaker_open");
    }
    gateway.write_config(&yaml("failures: 4, cool_down: 30m"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(["/whole", "/each"].map(|path| gateway.get(path).reason()), ["breaker_open", "breaker_open"]);
    // A shorter time counts from now on.
    gateway.write_config(&yaml("failures: 4, cool_down: 1ms"));
    assert_eq!(gateway.reload().status, 200);
    eventually("its time is over", || {
        ["/whole", "/each"].iter().all(|path| gateway.get(path).reason() == "connect_refused")
    });
}

#[test]
fn probes_leave_no_connections_behind() {
    let target = Target::named("echo", "a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"], health: {{active: {{path: /probe, expect_body: served, interval: 20ms}}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    eventually("many probes were sent", || target.count() > 40);
    let folder = format!("/proc/{}/fd", gateway.child.id());
    let sockets = std::fs::read_dir(folder)
        .expect("descriptors")
        .flatten()
        .filter(|f| std::fs::read_link(f.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
    let count = sockets.count();
    assert!(count < 20, "{count} sockets are open");
}

#[test]
fn a_target_that_is_gone_moves_only_its_own_clients() {
    let targets: Vec<Target> = ["a", "b", "c", "d"].into_iter().map(|name| Target::named("echo", name)).collect();
    let addresses: Vec<String> = targets.iter().map(|t| format!("\"{}\"", t.address)).collect();
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{balance: {{hash: {{by: {{header: x-user}}, table: ring}}}}, targets: [{}], health: {{active: {{path: /healthz, interval: 50ms, fall: 1, rise: 1}}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        addresses.join(", ")
    ));
    let homes = || -> Vec<String> {
        let home = |user: usize| gateway.request("GET", "/", &[("x-user", &user.to_string())]);
        (0..60).map(|user| home(user).header("x-target").expect("a target").to_owned()).collect()
    };
    let before = homes();
    assert!(["a", "b", "c", "d"].iter().all(|name| before.iter().any(|home| home == name)), "{before:?}");
    targets[2].become_("503");
    eventually("c is out", || homes().iter().all(|home| home != "c"));
    for (was, is) in before.iter().zip(homes()) {
        assert!(*was == is || was == "c", "{was} became {is}");
    }
    targets[2].become_("echo");
    eventually("everyone is home again", || homes() == before);
}

#[test]
fn who_stands_out_among_the_others_is_out() {
    let words = ["echo", "echo", "echo", "echo", "flaky 50"];
    let targets: Vec<Target> = words.into_iter().map(|word| Target::named(word, "t")).collect();
    let addresses: Vec<String> = targets.iter().map(|t| format!("\"{}\"", t.address)).collect();
    let passive = "passive: {failures: 0, gateway_failures: 0, interval: 1s, success_rate: {deviations: 1, min_targets: 5, min_requests: 5}}";
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [{}], retry: {{attempts: 1}}, health: {{{passive}}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        addresses.join(", ")
    ));
    let series = "portcullis_target_ejections_total{reason=\"success_rate\",upstream=\"pool\"}";
    eventually("the odd one is out", || {
        (0..50).for_each(|_| drop(gateway.get("/")));
        gateway.metric(series) > 0.5
    });
    assert!((0..20).all(|_| gateway.get("/").status == 200));
}

#[test]
fn a_grpc_status_is_tried_again_where_the_route_says_so() {
    let unavailable = Target::fixed(200, &[("content-type", "application/grpc"), ("grpc-status", "14")], b"");
    let well = Target::fixed(200, &[("content-type", "application/grpc"), ("grpc-status", "0")], b"");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\", \"{}\"], retry: {{grpc_statuses: [14]}}}}}}\nroutes:\n  - {{name: again, match: {{path: /again}}, action: {{forward: {{upstream: pool, retry_methods: [POST]}}}}}}\n  - {{name: once, action: {{forward: pool}}}}",
        unavailable.address, well.address
    ));
    let ask = |path: &str| {
        let answer = gateway.request("POST", path, &[("content-type", "application/grpc"), ("content-length", "0")]);
        answer.header("grpc-status").map(str::to_owned)
    };
    assert!((0..6).all(|_| ask("/again").as_deref() == Some("0")));
    let once: Vec<_> = (0..2).map(|_| ask("/once").unwrap_or_default()).collect();
    assert!(once.contains(&"14".to_owned()) && once.contains(&"0".to_owned()), "{once:?}");
}

/// A target that answers before it has the body still has the request: whoever uploads slowly passes no limit.
#[test]
fn an_early_answer_does_not_make_room() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("an address");
    // It ends with the gateway's last connection and this test's own.
    let answering = std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut some = [0; 4096];
            if matches!(std::io::Read::read(&mut stream, &mut some), Ok(0) | Err(_)) {
                return;
            }
            answer(&mut stream, 200, &[], b"early").expect("answered");
            held.push(stream);
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{target}\"], limits: {{requests: 2, pending: 0}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]"
    ));
    let upload = || {
        let mut connection = Connection::open(gateway.address());
        connection.send(head("POST", "/", &[("content-length", "1000")]) + "part");
        (connection.receive().status, connection)
    };
    let held: Vec<_> = (0..3).map(|_| upload()).collect();
    assert_eq!(held.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 503]);
    drop(held);
    eventually("there is room", || upload().0 == 200);
    drop(std::net::TcpStream::connect(target).expect("a connection"));
    answering.join().expect("the target");
}

/// An answer that breaks off does not look whole, whoever asked for it.
#[test]
fn a_hedged_answer_that_breaks_off_is_broken_off() {
    let target = Target::raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"], retry: {{hedge_after: 1s}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    let bytes = connection.rest();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("hello") && !text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(gateway.access_log(1)[0]["reason"], "target_reset");
}
