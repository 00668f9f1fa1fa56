//! The process as the system sees it (proc(5)).

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use prometheus::proto::MetricFamily;

use super::catalogue::{
    PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL,
};
use super::family::single;

/// The clock ticks of a second, in which proc(5) has the start: `USER_HZ` of Linux.
const TICKS: f64 = 100.0;

/// The number of the field with the start in `/proc/self/stat`, as proc(5) counts them.
const START_FIELD: usize = 22;

/// The time of the start, in seconds of Unix time. It is computed once, so that it is the same at each scrape.
static STARTED: LazyLock<Option<f64>> = LazyLock::new(|| {
    let since_boot = field(&fs::read_to_string("/proc/self/stat").ok()?, START_FIELD)? / TICKS;
    // As a system call: /proc/uptime is hidden by `ProcSubset=pid` of the unit.
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.num_microseconds() as f64 / 1e6;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(((now - uptime + since_boot) * 100.0).round() / 100.0)
});

/// Returns a field of `/proc/self/stat`. The second, in parentheses, may contain spaces.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Returns the metrics of the process; those that the system does not report are left out.
pub fn families() -> Vec<MetricFamily> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let kibibytes = |name| line(name).map(|number| number * 1024.0);
    // The descriptor by which the folder is read is not counted.
    let open = fs::read_dir("/proc/self/fd").map(|all| all.count().saturating_sub(1) as f64).ok();
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let cpu = usage.map(|used| (used.user_time() + used.system_time()).num_microseconds() as f64 / 1e6);
    let all = [
        (&PROCESS_CPU, cpu),
        (&PROCESS_MAX_FDS, getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft as f64).ok()),
        (&PROCESS_OPEN_FDS, open),
        (&PROCESS_RESIDENT, kibibytes("VmRSS:")),
        (&PROCESS_START, *STARTED),
        (&PROCESS_THREADS, line("Threads:")),
        (&PROCESS_VIRTUAL, kibibytes("VmSize:")),
    ];
    all.into_iter().filter_map(|(facts, value)| Some(single(facts, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_reports_all_of_it() {
        let found = families();
        let value = |name: &str| {
            let family = found.iter().find(|family| family.name() == name).expect("the metric");
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("process_threads") >= 1.0 && value("process_open_fds") >= 3.0);
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_max_fds") >= value("process_open_fds"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - value("process_start_time_seconds"))));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert_eq!(field("1 (a ) b) S 2 3", 4), Some(2.0));
    }
}
