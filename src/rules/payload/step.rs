//! One step in the transformation of a body, and a chain of steps.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Decoder;

/// One step in the transformation of a body, which works on its parts.
pub trait Step: Send + Sync + fmt::Debug {
    /// Returns whether the step only looks at the body, which stays as it is.
    fn observes(&self) -> bool {
        false
    }

    /// Returns whether the response may still become another one at the end of its body: its head is held back.
    fn holds_head(&self) -> bool {
        false
    }

    /// Processes the next part, the last if `end`, and appends the result to `out`.
    ///
    /// A step is not used again after an error or after the end.
    ///
    /// # Errors
    /// [`Opaque`]; nothing more of the body must be passed on then.
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque>;
}

/// The reason for which a body cannot be inspected or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// The document is nested deeper than [`super::MAX_DEPTH`].
    TooDeep,
    /// It begins as UTF-16 or UTF-32 does, which some JSON parsers detect by themselves.
    NotUtf8,
    /// It is not JSON, so that it is not known what stands where.
    NotJson,
    /// Its content coding is damaged or truncated.
    Damaged,
    /// One part of it decodes to more than [`super::MAX_DECODED`].
    TooDense,
    /// It cannot be encoded.
    Unencodable,
    /// It is needed whole, and larger than may be held.
    TooLarge,
    /// It cannot be converted into another format, and why.
    Unconvertible(Box<str>),
    /// A template for it cannot be rendered, and why.
    Template(Box<str>),
    /// It violates its schema.
    Invalid,
    /// It is longer than what is held to validate it.
    TooLong,
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooDeep => "the document is nested too deep",
            Self::NotUtf8 => "the document is not UTF-8",
            Self::NotJson => "the document is not JSON",
            Self::Damaged => "the content coding of the body is damaged, or ends too early",
            Self::TooDense => "the body becomes too large when it is decoded",
            Self::Invalid => "the body violates its schema",
            Self::TooLong => "the body is longer than what is held to validate it",
            Self::Unencodable => "no content coding can be put on the body",
            Self::TooLarge => "the body is too large to be changed as a whole",
            Self::Unconvertible(why) => return write!(f, "the body cannot be converted: {why}"),
            Self::Template(why) => return write!(f, "a template for the body cannot be rendered: {why}"),
        })
    }
}

/// The steps that the body of one message passes, in order.
#[derive(Debug, Default)]
pub struct BodyChain {
    steps: SmallVec<[Box<dyn Step>; 2]>,
    decodes: bool,
}

/// The number of bytes that a step may add to a part without reallocation of the buffer.
const BUFFER_SLACK: usize = 64;

impl BodyChain {
    /// Appends a step.
    pub fn add(&mut self, step: Box<dyn Step>) {
        self.steps.push(step);
    }

    /// Appends a step that decodes a content coding.
    pub fn decode(&mut self, decoder: Decoder) {
        self.decodes = true;
        self.add(Box::new(decoder));
    }

    /// Returns whether the body passes unchanged.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns whether a step changes the body.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| !step.observes())
    }

    /// Returns whether the response may still become another one at the end of its body.
    pub fn holds_head(&self) -> bool {
        self.steps.iter().any(|step| step.holds_head())
    }

    /// Returns whether a content coding is decoded, so that a small part may become a large one.
    pub fn decodes(&self) -> bool {
        self.decodes
    }

    /// Replaces a part of the body, the last if `end`, with the result of all steps.
    ///
    /// # Errors
    /// [`Opaque`]; nothing more of the body must be passed on then.
    pub fn push(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<(), Opaque> {
        for step in &mut self.steps {
            let part = body.take().unwrap_or_default();
            let mut out = Vec::with_capacity(part.len() + BUFFER_SLACK);
            step.push(&part, end, &mut out)?;
            *body = (!out.is_empty()).then(|| Bytes::from(out));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles every byte, and appends the number of bytes at the end.
    #[derive(Debug, Default)]
    struct Doubling(usize);

    impl Step for Doubling {
        fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
            self.0 += part.len();
            out.extend(part.iter().flat_map(|byte| [*byte, *byte]));
            if end {
                out.extend(self.0.to_string().bytes());
            }
            Ok(())
        }
    }

    #[test]
    fn each_step_sees_what_the_one_before_it_made() {
        let mut chain = BodyChain::default();
        assert!(chain.is_empty());
        chain.add(Box::new(Doubling::default()));
        chain.add(Box::new(Doubling::default()));
        let mut out = Vec::new();
        for (part, end) in [("ab", false), ("", false), ("c", true)] {
            let mut body = (!part.is_empty()).then(|| Bytes::from(part));
            chain.push(&mut body, end).expect("never opaque");
            out.extend(body.unwrap_or_default());
        }
        assert_eq!(String::from_utf8_lossy(&out), "aaaabbbbcccc337");
    }
}
