//! Pure decisions: functions of their inputs, the time and a random number.
//!
//! Never here: a socket, a clock, a file, a runtime, a lock shared between workers. That is what
//! lets `explain` run the code that serves traffic, and tests hold every rule against a naive model.

pub mod balance;
pub mod frames;
pub mod identity;
pub mod limits;
pub mod path;
pub mod payload;
pub mod protocols;
pub mod resilience;
pub mod routing;
