//! Limits: rates, calendar windows, and paces.

mod blocks;
mod calendar;
mod gcra;
mod pace;
mod sliding;
mod windows;

use std::time::Duration;

pub use blocks::{is_block_low, quota_grant};
pub use calendar::{CalendarUnit, CalendarWindow};
pub use gcra::Gcra;
pub use pace::{BytePace, Pacer};
pub use windows::{KeyState, MAX_WINDOWS, Window, WindowKind, Windows, WindowsDecision};

/// The state of a limit for a key after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The number of further requests that would be allowed now.
    pub remaining: u32,
    /// The time until the request would be allowed; zero if it is.
    pub retry_after: Duration,
    /// The time until nothing is counted any more.
    pub reset: Duration,
}
