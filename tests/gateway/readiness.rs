//! The time between the end of readiness and the end of the listeners.

use std::time::{Duration, Instant};

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::Gateway;

fn with(readiness_time: &str) -> Gateway {
    Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{body: here}}}}}}]
process: {{threads: 2, drain_time: 10s, readiness_time: {readiness_time}}}"
    ))
}

#[test]
fn requests_are_accepted_while_readiness_fails_already() {
    let mut gateway = with("1h");
    assert_eq!(client::get(gateway.admin, "/readyz").status, 200);
    gateway.signal("-TERM");
    eventually("it is not ready any more", || client::get(gateway.admin, "/readyz").status == 503);
    assert_eq!(client::get(gateway.admin, "/healthz").status, 200);
    assert_eq!(gateway.get("/").text(), "here", "and a new connection is accepted");
    assert!(gateway.log().contains("the listeners close in 3600s"), "{}", gateway.log());
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(1), "a second signal ends it at once");
}

#[test]
fn the_listeners_close_once_that_time_is_over() {
    let mut gateway = with("1s");
    let begun = Instant::now();
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(gateway.log().contains("drained: no connection is open"), "{}", gateway.log());
}
