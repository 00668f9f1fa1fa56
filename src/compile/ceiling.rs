//! `process.ceiling`: the memory and the descriptors that the limits allow in the worst case.
//!
//! The worst case is that of attackers who hold every connection at its limits. Idle connections take about 1 KiB each,
//! so that a gateway is far below it as a rule; but nothing else keeps it there.

use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::config::{ListenerLimits, Loaded};
use crate::filters::UsedCache;
use crate::notation::{Mistakes, Place};
use crate::snapshot::{Listener, ListenerSpec};

/// The most memory of a connection at layer 4: a buffer of each direction.
const STREAM_BUFFERS: u64 = (2 * 64) << 10;

/// What a connection may take beside the heads of its requests: what has been read ahead of a body and of a response,
/// and what waits to be sent.
const CONNECTION_BUFFERS: u64 = 320 << 10;

/// What may be received of the bodies of all streams of an HTTP/2 connection before it is read.
const HTTP2_WINDOW: u64 = 256 << 10;

/// The memory of the process itself: code, configuration, caches of verified tokens.
const PROCESS_MEMORY: u64 = 96 << 20;

/// The descriptors beside connections: listeners, logs, the admin listener's connections, files.
const PROCESS_DESCRIPTORS: u64 = 512;

/// What the limits allow in the worst case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WorstCase {
    memory: u64,
    descriptors: u64,
}

/// Notes where the limits allow more than the process may have: a warning, or an error if the ceiling is strict.
pub fn check(
    loaded: &Loaded,
    listeners: &[Listener],
    caches: &[UsedCache],
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) {
    let ceiling = &loaded.config.process.ceiling;
    let out = if ceiling.strict { mistakes } else { warnings };
    let place = Place::default().key("process").key("ceiling");
    let of_caches: u64 = caches.iter().map(|used| used.settings.memory_limit()).sum();
    let worst = worst_case(listeners, loaded.config.process.body_memory.0 + of_caches);
    let memory = ceiling.memory.as_ref().map(|size| size.0).or_else(cgroup_memory);
    if let Some(memory) = memory.filter(|memory| worst.memory > *memory) {
        let text = format!(
            "the limits allow {} of memory in the worst case, and the process may have {}: lower limits.connections, \
             limits.http2_memory or limits.headers of listeners, body_memory, or memory of caches",
            size_text(worst.memory),
            size_text(memory)
        );
        out.add(&place.key("memory"), text);
    }
    // The default is as many connections as there may be, and not so many that there have to be.
    let default = ListenerLimits::default().connections as usize;
    let is_default = listeners.iter().all(|listener| listener.connections.connections == default);
    let descriptors = ceiling.descriptors.or_else(|| if is_default { None } else { most_descriptors() });
    if let Some(descriptors) = descriptors.filter(|descriptors| worst.descriptors > *descriptors) {
        let text = format!(
            "the limits allow {} descriptors in the worst case, and the process may have {descriptors}: lower \
             limits.connections of listeners, or raise the limit (ulimit -Hn, LimitNOFILE)",
            worst.descriptors
        );
        out.add(&place.key("descriptors"), text);
    }
}

fn worst_case(listeners: &[Listener], held_memory: u64) -> WorstCase {
    let of_listeners = listeners.iter().map(|listener| {
        let connections = listener.connections.connections as u64;
        // Each has one to a target at most, and those that are idle replace one another.
        WorstCase { memory: connections * connection_memory(listener), descriptors: connections * 2 }
    });
    let process = WorstCase { memory: PROCESS_MEMORY + held_memory, descriptors: PROCESS_DESCRIPTORS };
    of_listeners.fold(process, |sum, one| WorstCase {
        memory: sum.memory.saturating_add(one.memory),
        descriptors: sum.descriptors + one.descriptors,
    })
}

/// Returns the most memory of a connection: a head is there as it came and as fields.
fn connection_memory(listener: &Listener) -> u64 {
    let ListenerSpec::Http(http) = &listener.kind else { return STREAM_BUFFERS };
    let heads = 2 * http.limits.headers as u64;
    // Beside the budget of its streams an HTTP/2 connection has the window of their bodies.
    let streams = if http.http2 { http.limits.http2_memory as u64 + HTTP2_WINDOW } else { 0 };
    CONNECTION_BUFFERS + heads.max(streams)
}

fn most_descriptors() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard).filter(|hard| *hard != RLIM_INFINITY)
}

/// Returns the memory that the process's cgroup may have (cgroups(7)): the least of it and those that it is in.
fn cgroup_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own: PathBuf = root.join(path);
    let limit = |folder: &Path| std::fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok();
    own.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit).min()
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
