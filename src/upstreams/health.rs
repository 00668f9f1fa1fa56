//! The state machine of one target's health, after HAProxy's `fall` and `rise`.

use std::time::SystemTime;

/// How many results in a row change a target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thresholds {
    /// Failures that take a healthy target out.
    pub fall: u32,
    /// Successes that bring an unhealthy target back.
    pub rise: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// To be probed, and not yet: not picked. The first result decides alone.
    Unknown,
    Healthy,
    Unhealthy,
}

/// A target's health.
#[derive(Debug)]
pub struct HealthState {
    status: Status,
    /// Results in a row that speak against the present status.
    against: u32,
    since: SystemTime,
    last: Option<(SystemTime, Result<(), String>)>,
}

/// A target's health, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HealthView {
    /// `healthy`, `unhealthy` or `unknown`.
    pub status: &'static str,
    /// Since when, in seconds of Unix time.
    pub since: u64,
    /// The last probe's time in seconds of Unix time.
    pub last_probe: Option<u64>,
    /// Why the last probe failed.
    pub reason: Option<String>,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl HealthState {
    /// Of a target of which that is known.
    pub fn new(healthy: Option<bool>) -> Self {
        let status = match healthy {
            None => Status::Unknown,
            Some(true) => Status::Healthy,
            Some(false) => Status::Unhealthy,
        };
        Self { status, against: 0, since: SystemTime::now(), last: None }
    }

    /// Whether the target may be picked.
    pub fn is_healthy(&self) -> bool {
        self.status == Status::Healthy
    }

    /// Whether it is healthy; `None` before the first probe.
    pub fn known(&self) -> Option<bool> {
        (self.status != Status::Unknown).then(|| self.is_healthy())
    }

    /// Whether the last results speak against the status.
    pub fn is_changing(&self) -> bool {
        self.against > 0
    }

    /// Notes a probe's result. Whether the target may be picked changed by it.
    pub fn observe(&mut self, result: Result<(), String>, thresholds: Thresholds) -> bool {
        let good = result.is_ok();
        self.last = Some((SystemTime::now(), result));
        let (speaks_for, needed) = match self.status {
            Status::Unknown => (false, 1),
            Status::Healthy => (good, thresholds.fall),
            Status::Unhealthy => (!good, thresholds.rise),
        };
        if speaks_for {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < needed {
            return false;
        }
        let before = self.is_healthy();
        self.status = if good { Status::Healthy } else { Status::Unhealthy };
        self.against = 0;
        self.since = SystemTime::now();
        before != self.is_healthy()
    }

    /// For people.
    pub fn view(&self) -> HealthView {
        HealthView {
            status: match self.status {
                Status::Unknown => "unknown",
                Status::Healthy => "healthy",
                Status::Unhealthy => "unhealthy",
            },
            since: seconds(self.since),
            last_probe: self.last.as_ref().map(|(at, _)| seconds(*at)),
            reason: self.last.as_ref().and_then(|(_, r)| r.clone().err()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Thresholds = Thresholds { fall: 3, rise: 2 };

    fn bad() -> Result<(), String> {
        Err("refused".to_owned())
    }

    #[test]
    fn the_first_result_decides() {
        let mut state = HealthState::new(None);
        assert!(!state.is_healthy());
        assert!(state.observe(Ok(()), T) && state.is_healthy());
        let mut state = HealthState::new(None);
        assert!(!state.observe(bad(), T) && !state.is_healthy());
        assert_eq!(state.view().reason.as_deref(), Some("refused"));
        assert!(!state.observe(Ok(()), T) && state.observe(Ok(()), T));
    }

    #[test]
    fn fall_and_rise_count_in_a_row() {
        let mut state = HealthState::new(None);
        state.observe(Ok(()), T);
        for result in [bad(), bad(), Ok(()), bad(), bad()] {
            assert!(!state.observe(result, T));
        }
        assert!(state.is_healthy());
        assert!(state.observe(bad(), T) && !state.is_healthy());
        assert!(!state.observe(Ok(()), T) && !state.observe(bad(), T) && !state.observe(Ok(()), T));
        assert!(state.observe(Ok(()), T) && state.is_healthy());
    }
}
