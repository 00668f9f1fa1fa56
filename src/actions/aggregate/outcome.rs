//! How calls end.

use std::fmt;

use http::HeaderMap;

use crate::exchange::Reason;

/// The result of a call.
#[derive(Clone, Debug)]
pub struct CallPart {
    /// The status; 0 where there was no response.
    pub status: u16,
    /// The headers that others use.
    pub headers: HeaderMap,
    /// The document, or what is taken of it.
    pub json: Box<str>,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFault {
    /// The kind.
    pub kind: FaultKind,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// The detail for the log.
    pub log: String,
}

/// The kinds of faults: a closed list, since they are in responses and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No target gave a response, as with a forwarded request.
    Upstream(Reason),
    /// Its time was over.
    TimedOut,
    /// The status is none of those that are accepted.
    Status,
    /// The result is too large.
    TooLarge,
    /// The results are too large together, or there is no memory for them.
    TooLargeTogether,
    /// The content coding cannot be decoded.
    Undecodable,
    /// The body is not JSON.
    NotJson,
    /// The value that is to be taken is not there.
    ValueMissing,
    /// A value of another call that it needs is not there.
    InputMissing,
    /// A value would lead to another path, or cannot be sent.
    InputInvalid,
    /// The condition cannot be evaluated.
    ConditionFailed,
    /// There is no list to make calls for.
    NotAList,
    /// The list has too many elements.
    TooManyItems,
    /// The result is not an object, and cannot be merged flat.
    NotAnObject,
}

impl FaultKind {
    /// Returns the word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Upstream(reason) => reason.code(),
            Self::TimedOut => "timed_out",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::TooLargeTogether => "too_large_together",
            Self::Undecodable => "undecodable",
            Self::NotJson => "not_json",
            Self::ValueMissing => "value_missing",
            Self::InputMissing => "input_missing",
            Self::InputInvalid => "input_invalid",
            Self::ConditionFailed => "condition_failed",
            Self::NotAList => "not_a_list",
            Self::TooManyItems => "too_many_items",
            Self::NotAnObject => "not_an_object",
        }
    }

    /// Returns whether it took too long.
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::TimedOut | Self::Upstream(Reason::TargetTimeout | Reason::ConnectTimeout))
    }

    /// Returns the reason with which a request ends that needs the call.
    pub fn reason(self) -> Reason {
        match self {
            Self::Upstream(reason) => reason,
            Self::TimedOut => Reason::RouteTimeout,
            _ => Reason::CallFailed,
        }
    }
}

impl CallFault {
    /// Returns a fault before there was a response.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, status: None, log: String::new() }
    }

    /// Returns a fault of a response.
    pub fn of_response(kind: FaultKind, status: u16) -> Self {
        Self { kind, status: Some(status), log: String::new() }
    }

    /// Adds a detail for the log.
    #[must_use]
    pub fn log(mut self, text: impl Into<String>) -> Self {
        self.log = text.into();
        self
    }
}

impl fmt::Display for CallFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.code())?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        if self.log.is_empty() { Ok(()) } else { write!(f, " ({})", self.log) }
    }
}
