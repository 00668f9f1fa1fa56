//! What the tests stand on: gateways as processes, targets that behave and misbehave, and a client
//! that sends just the bytes that it is told to.

#![allow(dead_code, reason = "shared by several test crates, each of which uses a part")]

pub mod browser;
pub mod bytes;
pub mod client;
pub mod gateway;
pub mod grpc;
pub mod lambda;
pub mod mmdb;
pub mod page;
pub mod scenario;
pub mod target;

use std::time::{Duration, Instant};

/// Waits for a condition; the only way in which tests wait.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
