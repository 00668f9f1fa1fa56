//! Telling a service manager how it stands, by the protocol of sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It serves.
pub fn ready() {
    tell("READY=1\nSTATUS=serving");
}

/// A reload has begun; [`ready`] or [`refused`] ends it.
pub fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let micros = now.map_or(0, |now| i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
}

/// A reload was refused: what served before goes on.
pub fn refused(mistakes: usize) {
    let plural = if mistakes == 1 { "" } else { "s" };
    tell(&format!("READY=1\nSTATUS=serving; the last reload was refused for {mistakes} mistake{plural}"));
}

/// It drains, and ends.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

/// A successor is the service from now on.
pub fn main_pid(pid: i32) {
    // What that one has said of itself was not heard: it was not the main process yet.
    tell(&format!("MAINPID={pid}\nSTATUS=serving"));
}

/// A line for people.
pub fn status(text: &str) {
    tell(&format!("STATUS={text}"));
}

/// Nobody is told where nobody asked, and nothing depends on being heard.
fn tell(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = sent {
        log::warn!("the service manager cannot be told: {error}");
    }
}
