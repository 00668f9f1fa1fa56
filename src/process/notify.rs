//! Notifications to a service manager, with the protocol of sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Reports that the process serves.
pub fn ready() {
    send_notification("READY=1\nSTATUS=serving");
}

/// Reports that a reload has begun; [`ready`] or [`report_rejected_reload`] ends it.
pub fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let micros = now.map_or(0, |now| i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000);
    send_notification(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
}

/// Reports that a reload was rejected: the previous configuration stays.
pub fn report_rejected_reload(mistakes: usize) {
    let plural = if mistakes == 1 { "" } else { "s" };
    send_notification(&format!("READY=1\nSTATUS=serving; the last reload was rejected for {mistakes} error{plural}"));
}

/// Reports that the process drains, and ends.
pub fn stopping() {
    send_notification("STOPPING=1\nSTATUS=draining");
}

/// Reports that a successor is the main process from now on.
pub fn main_pid(pid: i32) {
    // Its own notifications were ignored while it was not the main process.
    send_notification(&format!("MAINPID={pid}\nSTATUS=serving"));
}

/// Reports a status line for people.
pub fn status(text: &str) {
    send_notification(&format!("STATUS={text}"));
}

/// Sends a notification. Without a service manager nothing is sent; an error is only logged.
fn send_notification(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = sent {
        log::warn!("the service manager cannot be notified: {error}");
    }
}
