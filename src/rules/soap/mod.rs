//! SOAP 1.1 and 1.2: envelopes, faults, and their content as JSON.

mod envelope;
mod fault;
mod types;
mod write;

pub use envelope::{Content, Envelope, ErrorKind, parse_envelope};
pub use fault::Fault;
pub use types::{TypedPaths, value_at};
pub use write::{NameRules, Naming, XSI, envelope, fault_envelope};

/// The version of SOAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoapVersion {
    /// SOAP 1.1.
    #[default]
    V11,
    /// SOAP 1.2.
    V12,
}

impl SoapVersion {
    /// Returns the namespace of its envelopes.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::V11 => "http://schemas.xmlsoap.org/soap/envelope/",
            Self::V12 => "http://www.w3.org/2003/05/soap-envelope",
        }
    }

    /// Returns the version with envelopes of that namespace.
    pub fn of_namespace(namespace: &str) -> Option<Self> {
        [Self::V11, Self::V12].into_iter().find(|version| version.namespace() == namespace)
    }

    /// Returns the media type of its messages.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml",
            Self::V12 => "application/soap+xml",
        }
    }
}
