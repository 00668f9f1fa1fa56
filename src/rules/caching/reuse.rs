//! How a stored response may be used for a request (RFC 9111, section 4).

use http::HeaderMap;

use super::directives::{RequestDirectives, ResponseDirectives, Scope};

/// What is known of a stored response when it is found. Times are milliseconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFacts {
    /// The time from which its age is counted.
    pub age_from: i64,
    /// When it becomes stale.
    pub fresh_until: i64,
    /// For how many seconds it may be used stale while it is validated.
    pub stale_while_revalidate: u32,
    /// For how many seconds it may be used stale where the origin fails.
    pub stale_if_error: u32,
    /// What its own directives forbid.
    pub limits: StaleLimits,
}

/// What the directives of a stored response forbid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleLimits {
    /// It may not be used without validation at all.
    pub no_cache: bool,
    /// It may not be used once it is stale, whatever the request says.
    pub forbids_stale: bool,
}

impl StaleLimits {
    /// Returns the limits of a stored response with those fields, which a configured lifetime does not lift.
    pub fn of(stored: &HeaderMap) -> Self {
        let (directives, _) = ResponseDirectives::of(stored);
        Self { no_cache: directives.no_cache == Scope::Whole, forbids_stale: directives.forbids_stale() }
    }
}

/// The ways in which a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is fresh: it is the response.
    Fresh,
    /// It is stale, and the request accepts that: it is the response.
    AcceptedStale,
    /// It is stale, and is the response while it is validated for later requests (RFC 5861, section 3).
    WhileRevalidating,
    /// It has to be validated first.
    Validate {
        /// Whether it is the request that wants this, and not that the response is stale.
        by_request: bool,
        /// Whether it may be used if the origin fails (RFC 5861, section 4).
        unless_error: bool,
    },
}

impl StoredFacts {
    /// Returns the age in seconds (RFC 9111, section 4.2.3).
    pub fn age(&self, now: i64) -> u64 {
        u64::try_from((now - self.age_from).div_euclid(1_000)).unwrap_or(0)
    }

    /// Returns for how many seconds it is still fresh; below 0 it is stale.
    pub fn ttl(&self, now: i64) -> i64 {
        (self.fresh_until - now).div_euclid(1_000)
    }

    fn is_within(&self, seconds: u64, now: i64) -> bool {
        let window = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        now < self.fresh_until.saturating_add(window)
    }

    /// Returns how the response may be used for a request with those directives.
    pub fn reuse(&self, request: &RequestDirectives, now: i64) -> Reuse {
        let is_fresh = now < self.fresh_until;
        let error_window = request.stale_if_error.unwrap_or(0).max(u64::from(self.stale_if_error));
        let error_window = if self.limits.forbids_stale { u64::from(self.stale_if_error) } else { error_window };
        let unless_error = self.is_within(error_window, now) && (is_fresh || error_window > 0);
        // One that may not be used without validation is not stale by the request's wish.
        if self.limits.no_cache && !is_fresh {
            return Reuse::Validate { by_request: false, unless_error: false };
        }
        let is_too_old = request.max_age.is_some_and(|most| self.age(now) >= most.max(1))
            || request.max_age == Some(0)
            || request.min_fresh.is_some_and(|least| self.ttl(now) < i64::try_from(least).unwrap_or(i64::MAX));
        if request.no_cache || (is_fresh && is_too_old) {
            return Reuse::Validate { by_request: true, unless_error };
        }
        if is_fresh {
            return Reuse::Fresh;
        }
        let accepted = request.max_stale.filter(|_| !self.limits.forbids_stale && request.max_age.is_none());
        if accepted.is_some_and(|most| self.is_within(most, now)) {
            return Reuse::AcceptedStale;
        }
        if self.stale_while_revalidate > 0 && self.is_within(u64::from(self.stale_while_revalidate), now) && !is_too_old
        {
            return Reuse::WhileRevalidating;
        }
        Reuse::Validate { by_request: false, unless_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: StoredFacts = StoredFacts {
        age_from: 0,
        fresh_until: 60_000,
        stale_while_revalidate: 10,
        stale_if_error: 100,
        limits: StaleLimits { no_cache: false, forbids_stale: false },
    };

    fn validate(by_request: bool, unless_error: bool) -> Reuse {
        Reuse::Validate { by_request, unless_error }
    }

    #[test]
    fn time_decides() {
        let none = RequestDirectives::default();
        assert_eq!(STORED.reuse(&none, 59_999), Reuse::Fresh);
        assert_eq!(STORED.reuse(&none, 60_000), Reuse::WhileRevalidating);
        assert_eq!(STORED.reuse(&none, 69_999), Reuse::WhileRevalidating);
        assert_eq!(STORED.reuse(&none, 70_000), validate(false, true));
        assert_eq!(STORED.reuse(&none, 160_000), validate(false, false));
        assert_eq!((STORED.age(59_999), STORED.ttl(59_001), STORED.ttl(60_001)), (59, 0, -1));
    }

    #[test]
    fn requests_are_stricter_or_more_lenient() {
        let with = |request: RequestDirectives, now| STORED.reuse(&request, now);
        let none = RequestDirectives::default();
        assert_eq!(with(RequestDirectives { no_cache: true, ..none }, 1), validate(true, true));
        assert_eq!(with(RequestDirectives { max_age: Some(0), ..none }, 1), validate(true, true));
        assert_eq!(with(RequestDirectives { max_age: Some(30), ..none }, 29_000), Reuse::Fresh);
        assert_eq!(with(RequestDirectives { max_age: Some(30), ..none }, 30_000), validate(true, true));
        assert_eq!(with(RequestDirectives { min_fresh: Some(30), ..none }, 29_000), Reuse::Fresh);
        assert_eq!(with(RequestDirectives { min_fresh: Some(30), ..none }, 31_000), validate(true, true));
        assert_eq!(with(RequestDirectives { max_stale: Some(50), ..none }, 109_000), Reuse::AcceptedStale);
        assert_eq!(with(RequestDirectives { max_stale: Some(50), ..none }, 111_000), validate(false, true));
        assert_eq!(with(RequestDirectives { max_stale: Some(u64::MAX), ..none }, 999_000), Reuse::AcceptedStale);
        assert_eq!(with(RequestDirectives { stale_if_error: Some(500), ..none }, 300_000), validate(false, true));
    }

    #[test]
    fn a_response_that_forbids_it_is_never_used_stale() {
        let limits = StaleLimits { no_cache: false, forbids_stale: true };
        let strict = StoredFacts { stale_while_revalidate: 0, stale_if_error: 0, limits, ..STORED };
        let lenient =
            RequestDirectives { max_stale: Some(u64::MAX), stale_if_error: Some(500), ..RequestDirectives::default() };
        assert_eq!(strict.reuse(&lenient, 60_000), validate(false, false));
        assert_eq!(strict.reuse(&lenient, 59_999), Reuse::Fresh);
    }
}
