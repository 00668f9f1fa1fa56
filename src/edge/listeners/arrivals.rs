//! The rate of new connections of a listener, in all and of one address.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use pingora_limits::rate::Rate;

use super::evict::address_key;
use crate::snapshot::ConnectionLimits;

/// The counters of a row of the sketch; two addresses share one in each of its rows only by great chance.
const COUNTERS: usize = 16_384;

/// Counts new connections in windows of a second, so that up to twice a rate may pass at the border of two. The memory
/// is the same for any number of addresses, and is taken with the first connection that is counted.
#[derive(Debug, Default)]
pub struct Arrivals {
    all: OnceLock<Sketch>,
    by_address: OnceLock<Sketch>,
}

/// A rate by key, estimated.
struct Sketch(Rate);

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sketch")
    }
}

impl Sketch {
    fn new(counters: usize) -> Self {
        Self(Rate::new_with_estimator_config(Duration::from_secs(1), 4, counters))
    }

    fn is_over(&self, key: u64, per_second: f64) -> bool {
        self.0.observe(&key, 1) as f64 > per_second
    }
}

impl Arrivals {
    /// Counts a connection of that address; `counts_address` says whether its address has a limit. Returns whether
    /// there are too many.
    pub fn is_too_many(&self, limits: &ConnectionLimits, address: IpAddr, counts_address: bool) -> bool {
        let of_address = limits.new_per_address.filter(|_| counts_address).is_some_and(|most| {
            self.by_address.get_or_init(|| Sketch::new(COUNTERS)).is_over(address_key(address), most)
        });
        // What is closed for its address takes nothing from others.
        of_address || limits.new.is_some_and(|most| self.all.get_or_init(|| Sketch::new(1)).is_over(0, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_has_too_many_takes_nothing_from_others() {
        let arrivals = Arrivals::default();
        let limits = ConnectionLimits { connections: 10, per_address: 10, new: Some(5.0), new_per_address: Some(2.0) };
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().expect("an address"));
        // All within a window, or in two of them.
        let passed = |address: IpAddr, count: usize| {
            (0..count).filter(|_| !arrivals.is_too_many(&limits, address, true)).count()
        };
        assert!((2..=4).contains(&passed(one, 50)));
        assert!((1..=4).contains(&passed(other, 50)));
        assert!((0..=10).contains(&(0..50).filter(|_| !arrivals.is_too_many(&limits, one, false)).count()));
    }
}
