//! The state that a process hands to its successor besides sockets: one mechanism for every kind of state.

use serde_json::Result;

/// The part of a state that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverPart {
    /// All of it, while this process serves. Changes from now on are noted.
    Whole,
    /// The changes since then, while no process accepts.
    Last,
    /// What this process counts while it drains and the successor serves, to be added to the successor's counts.
    Late,
}

/// A kind of state that outlives its process. To add a kind, implement this and add it to [`super::Live::heritage`].
///
/// Forms are JSON and relative in time (an age, a time left), since two processes share no clock but the wall clock.
/// Both run on one machine under one user; a form may hold secrets, and is never logged.
pub trait Heritable {
    /// Returns the name of the kind in a hand-over. It never changes.
    fn kind(&self) -> &'static str;

    /// Returns the version of the form. A successor that knows another one starts this kind afresh, and logs that.
    fn version(&self) -> u32;

    /// Returns the form for a successor; `None` when there is nothing to hand over.
    ///
    /// # Errors
    /// Fails when it cannot be written as JSON.
    fn save(&self, part: HandoverPart) -> Result<Option<Vec<u8>>>;

    /// Takes over the form of a predecessor, part after part; returns the number of its entries.
    ///
    /// # Errors
    /// Fails when the form is another one; nothing is taken over then.
    fn restore(&self, form: &[u8]) -> Result<usize>;

    /// Ends a hand-over that failed: the noted changes are dropped.
    fn cancel(&self) {}

    /// Drops the inherited state that the first configuration does not use; called once that serves.
    fn drop_unused(&self) {}
}
