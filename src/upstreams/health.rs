//! The state machine of one target's health, after HAProxy's `fall` and `rise`.

use std::time::SystemTime;

use crate::telemetry::rfc3339;

/// The number of results in a row that change a target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thresholds {
    /// Failures that make a healthy target unhealthy.
    pub fall: u32,
    /// Successes that make an unhealthy target healthy.
    pub rise: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Not probed yet, and not eligible. The first result decides alone.
    Unknown,
    Healthy,
    Unhealthy,
}

/// The health of a target.
#[derive(Debug)]
pub struct HealthState {
    status: Status,
    /// The number of results in a row that contradict the present status.
    against: u32,
    since: SystemTime,
    last: Option<(SystemTime, Result<(), String>)>,
}

/// The health of a target in the admin interface.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HealthView {
    /// `healthy`, `unhealthy` or `unknown`.
    pub status: &'static str,
    /// The time since when it has this status.
    pub since: String,
    /// The time of the last probe.
    pub last_probe: Option<String>,
    /// The reason for which the last probe failed.
    pub reason: Option<String>,
}

impl HealthState {
    /// Returns the state of a target with this known health.
    pub fn new(healthy: Option<bool>) -> Self {
        let status = match healthy {
            None => Status::Unknown,
            Some(true) => Status::Healthy,
            Some(false) => Status::Unhealthy,
        };
        Self { status, against: 0, since: SystemTime::now(), last: None }
    }

    /// Returns whether the target is eligible.
    pub fn is_healthy(&self) -> bool {
        self.status == Status::Healthy
    }

    /// Returns whether it is healthy; `None` before the first probe.
    pub fn known(&self) -> Option<bool> {
        (self.status != Status::Unknown).then(|| self.is_healthy())
    }

    /// Returns whether the last results contradict the status.
    pub fn is_changing(&self) -> bool {
        self.against > 0
    }

    /// Records a probe's result. Returns whether the target's eligibility changed.
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

    /// Returns the health for the admin interface.
    pub fn view(&self) -> HealthView {
        HealthView {
            status: match self.status {
                Status::Unknown => "unknown",
                Status::Healthy => "healthy",
                Status::Unhealthy => "unhealthy",
            },
            since: rfc3339(self.since),
            last_probe: self.last.as_ref().map(|(at, _)| rfc3339(*at)),
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
