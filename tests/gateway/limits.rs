//! Limits under concurrency.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::Target;

#[test]
fn a_limit_of_n_admits_n_with_a_hundred_at_once() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{rate_limit: {{limit: 150/h, by: route}}}}], action: {{forward: echo}}}}]",
        target.address
    ));
    let (admitted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                for _ in 0..4 {
                    let answer = connection.ask(head("GET", "/", &[]));
                    let counter = if answer.status == 200 { &admitted } else { &refused };
                    counter.fetch_add(1, Ordering::Relaxed);
                    assert!(answer.status == 200 || answer.header("retry-after").is_some());
                }
            });
        }
    });
    assert_eq!((admitted.into_inner(), refused.into_inner()), (150, 250));
    assert_eq!(target.count(), 150, "the target saw more than the limit");
}

#[test]
fn counts_outlive_a_reload() {
    let target = Target::echo("a");
    let yaml = |limit: &str| {
        format!(
            "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{rate_limit: {{limit: {limit}}}}}], action: {{forward: echo}}}}]",
            target.address
        )
    };
    let gateway = Gateway::start(&yaml("2/h"));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/").status, 429);
}
