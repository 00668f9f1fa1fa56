//! File descriptors that connections to targets leave to others.

use std::sync::LazyLock;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The most file descriptors that connections to targets leave to clients and operators; never more than an eighth of
/// all.
const RESERVED_DESCRIPTORS: u64 = 1024;

/// The first of the last descriptors, by the limit that the process has once it serves.
static FIRST_RESERVED: LazyLock<u64> = LazyLock::new(|| match getrlimit(Resource::RLIMIT_NOFILE) {
    Ok((limit, _)) if limit != RLIM_INFINITY => limit - (limit / 8).min(RESERVED_DESCRIPTORS),
    _ => u64::MAX,
});

/// Returns whether a descriptor is one of the last that the process may have: the kernel assigns the lowest free one.
pub fn is_reserved(descriptor: i32) -> bool {
    u64::try_from(descriptor).unwrap_or(0) >= *FIRST_RESERVED
}
