//! What a process hands to its successor besides sockets: one mechanism for every kind of state.

use serde_json::Result;

/// How much of a state is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, while this process serves. What changes from now on is noted.
    Whole,
    /// What has changed since, in the moment in which nobody accepts.
    Last,
    /// What this process counts while it drains and the successor serves: to be added to what that counts.
    Late,
}

/// A kind of state that outlives its process. To join, a kind implements this and stands in
/// [`super::Live::heritage`].
///
/// Forms are JSON and relative in time (an age, a time left), since no clock but the wall's is shared
/// by two processes. Both run on one machine under one user; a form may hold secrets, and is never
/// logged.
pub trait Heritable {
    /// Its name in a hand-over. Never changes.
    fn kind(&self) -> &'static str;

    /// The version of its form. A successor that knows another one starts this kind afresh, and says so.
    fn version(&self) -> u32;

    /// What a successor is to know; `None` when that is nothing.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn give(&self, part: Part) -> Result<Option<Vec<u8>>>;

    /// Takes what a predecessor gave, part after part; how many entries it had.
    ///
    /// # Errors
    /// When it is of another form; nothing is taken then.
    fn take(&self, form: &[u8]) -> Result<usize>;

    /// The hand-over came to nothing: what was noted is not needed.
    fn keep(&self) {}

    /// The first configuration serves: what nobody has asked for until now is not needed.
    fn settle(&self) {}
}
