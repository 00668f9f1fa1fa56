//! Signals: the time between the end of readiness and the end of the listeners, and logs that are opened again.

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

#[test]
fn a_renamed_access_log_is_opened_again_without_a_reload() {
    let gateway = with("0s");
    let (log, renamed) = (gateway.folder.path().join("access.log"), gateway.folder.path().join("access.log.1"));
    assert_eq!(gateway.get("/before").status, 200);
    gateway.access_log(1);
    std::fs::rename(&log, &renamed).expect("renamed");
    gateway.write_config("routes: wrong");
    gateway.signal("-USR1");
    eventually("the new file is there", || log.exists());
    assert_eq!(gateway.get("/after").status, 200);
    let line = &gateway.access_log(1)[0];
    assert_eq!(line["path"], "/after");
    assert_eq!(std::fs::read_to_string(&renamed).expect("the old file").lines().count(), 1);
    assert!(!gateway.log().contains("reload"), "{}", gateway.log());
}
