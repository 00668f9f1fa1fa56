//! What a request was translated from and into, for the log and the metrics.

/// The facts about a translated request.
#[derive(Clone, Debug)]
pub struct TranslationNote {
    /// The protocol of the client.
    pub from: &'static str,
    /// The protocol of the target.
    pub to: &'static str,
    /// What was called.
    pub operation: Option<Box<str>>,
    /// The status in the protocol of the target.
    pub target_status: Option<Box<str>>,
}

impl TranslationNote {
    /// Returns the note of a translation from one protocol to another.
    pub fn new((from, to): (&'static str, &'static str)) -> Self {
        Self { from, to, operation: None, target_status: None }
    }
}
