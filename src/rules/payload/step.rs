//! One step that the bytes of a body take on their way.

use std::fmt;

/// One step of a body: it takes the body in parts and appends to `out` what they become.
pub trait Step: Send + fmt::Debug {
    /// Takes the next part of the body, the last if `end`. A step is not used again after an error or after the end.
    ///
    /// # Errors
    /// [`Opaque`]; what the step has appended to `out` by then is not to be passed on.
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque>;
}

/// Why a body cannot be looked into or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// The document is nested deeper than [`super::MAX_DEPTH`].
    TooDeep,
    /// It begins as UTF-16 or UTF-32 does, which some readers of JSON find out by themselves.
    NotUtf8,
    /// Its content coding is damaged or ends too early.
    Damaged,
    /// One part of it becomes more than [`super::MAX_DECODED`] when it is decoded.
    TooDense,
    /// No content coding can be put on it.
    Unencodable,
}

impl Opaque {
    /// Returns the reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooDeep => "the document is nested too deep",
            Self::NotUtf8 => "the document is no UTF-8",
            Self::Damaged => "the content coding of the body is damaged, or ends too early",
            Self::TooDense => "the body becomes too large when it is decoded",
            Self::Unencodable => "no content coding can be put on the body",
        }
    }
}
