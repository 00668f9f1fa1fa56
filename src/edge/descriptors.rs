//! File descriptors that connections to targets leave to others.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The most file descriptors that connections to targets leave to clients and operators; never more than an eighth of
/// all.
const RESERVED_DESCRIPTORS: u64 = 1024;

/// Returns whether a descriptor is one of the last that the process may have: the kernel assigns the lowest free one.
pub fn is_reserved(descriptor: i32) -> bool {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return false };
    limit != RLIM_INFINITY && u64::try_from(descriptor).unwrap_or(0) >= limit - (limit / 8).min(RESERVED_DESCRIPTORS)
}
