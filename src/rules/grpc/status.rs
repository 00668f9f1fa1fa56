//! The status codes of gRPC, as numbers, names, words of the Connect protocol and HTTP statuses, and their messages.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// The field of the status code.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The field of the message.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The field of the details, a `google.rpc.Status` in base64.
pub const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Defines [`GrpcStatus`] as one table.
macro_rules! statuses {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal: $name:literal, $word:literal, $http:literal;)*) => {
        /// A status code (gRPC, "Status codes and their use in gRPC").
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum GrpcStatus {
            $($(#[doc = $doc])* $variant = $number,)*
        }

        impl GrpcStatus {
            /// All codes in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns its canonical name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns its word in the Connect protocol ("Error codes"), which has none for a success.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Returns the HTTP status of a response that ends with it (google.rpc.Code; the Connect protocol has the
            /// same).
            pub fn http(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }
        }
    };
}

statuses! {
    /// No error.
    Ok = 0: "OK", "", 200;
    /// The caller has cancelled the call.
    Cancelled = 1: "CANCELLED", "canceled", 499;
    /// The error is not known.
    Unknown = 2: "UNKNOWN", "unknown", 500;
    /// An argument is wrong whatever the state of the system.
    InvalidArgument = 3: "INVALID_ARGUMENT", "invalid_argument", 400;
    /// The time ended before the call did.
    DeadlineExceeded = 4: "DEADLINE_EXCEEDED", "deadline_exceeded", 504;
    /// What was requested was not found.
    NotFound = 5: "NOT_FOUND", "not_found", 404;
    /// What was to be made exists.
    AlreadyExists = 6: "ALREADY_EXISTS", "already_exists", 409;
    /// The caller may not do this.
    PermissionDenied = 7: "PERMISSION_DENIED", "permission_denied", 403;
    /// A quota or another resource is used up.
    ResourceExhausted = 8: "RESOURCE_EXHAUSTED", "resource_exhausted", 429;
    /// The system is not in a state in which this can be done.
    FailedPrecondition = 9: "FAILED_PRECONDITION", "failed_precondition", 400;
    /// The call was aborted, as by a conflict of transactions.
    Aborted = 10: "ABORTED", "aborted", 409;
    /// The call went beyond a valid range.
    OutOfRange = 11: "OUT_OF_RANGE", "out_of_range", 400;
    /// The method is not implemented.
    Unimplemented = 12: "UNIMPLEMENTED", "unimplemented", 501;
    /// An invariant of the system is broken.
    Internal = 13: "INTERNAL", "internal", 500;
    /// The service cannot be used at this time.
    Unavailable = 14: "UNAVAILABLE", "unavailable", 503;
    /// Data was lost or corrupted.
    DataLoss = 15: "DATA_LOSS", "data_loss", 500;
    /// The caller has no valid credentials.
    Unauthenticated = 16: "UNAUTHENTICATED", "unauthenticated", 401;
}

impl GrpcStatus {
    /// Returns the status of a number; a number that is not known is an unknown error.
    pub fn of(number: u32) -> Self {
        usize::try_from(number).ok().and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Unknown)
    }

    /// Returns the status in a `grpc-status` field; one that is no number is an unknown error.
    pub fn of_field(value: &[u8]) -> Self {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        number.map_or(Self::Unknown, Self::of)
    }

    /// Returns the status for a response that has no `grpc-status`, by its HTTP status (gRPC, "HTTP to gRPC status
    /// code mapping").
    pub fn of_http(status: u16) -> Self {
        match status {
            400 | 431 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// Returns the status in the trailers of a response, or in its head where that is all of it ("Trailers-Only").
    pub fn of_fields(fields: &HeaderMap) -> Option<Self> {
        fields.get(GRPC_STATUS).map(|value| Self::of_field(value.as_bytes()))
    }

    /// Writes the fields of the status, in place of others.
    pub fn write(self, message: &str, fields: &mut HeaderMap) {
        fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(self.number())));
        fields.remove(GRPC_STATUS_DETAILS);
        match HeaderValue::from_str(&encode_message(message)) {
            Ok(message) if !message.is_empty() => fields.insert(GRPC_MESSAGE, message),
            _ => fields.remove(GRPC_MESSAGE),
        };
    }

    /// Returns its number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// What Status-Message encodes: the percent sign, and all that is not printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns the value of `grpc-message` for a message (gRPC over HTTP/2, "Status-Message").
pub fn encode_message(message: &str) -> Cow<'_, str> {
    utf8_percent_encode(message, ENCODED).into()
}

/// Returns the message in a `grpc-message` field. An invalid escape is kept as it is, and bytes that are not UTF-8 are
/// replaced: the message is never a reason to fail.
pub fn decode_message(value: &[u8]) -> String {
    let bytes: Cow<'_, [u8]> = percent_decode(value).into();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_are_those_of_the_standard() {
        for (at, status) in GrpcStatus::ALL.iter().enumerate() {
            assert_eq!(usize::from(status.number()), at);
            assert_eq!(GrpcStatus::of_field(at.to_string().as_bytes()), *status);
            let word = if *status == GrpcStatus::Cancelled { "canceled".into() } else { status.name().to_lowercase() };
            assert!(*status == GrpcStatus::Ok || word == status.word(), "{word}");
        }
        for (http, numbers) in [
            (499, &[1][..]),
            (500, &[2, 13, 15]),
            (400, &[3, 9, 11]),
            (504, &[4]),
            (404, &[5]),
            (409, &[6, 10]),
            (403, &[7]),
            (429, &[8]),
            (501, &[12]),
            (503, &[14]),
            (401, &[16]),
        ] {
            numbers.iter().for_each(|number| assert_eq!(GrpcStatus::of(*number).http(), http, "{number}"));
        }
    }

    #[test]
    fn statuses_of_http_are_those_of_the_standard() {
        for (http, status) in [
            (400, GrpcStatus::Internal),
            (431, GrpcStatus::Internal),
            (401, GrpcStatus::Unauthenticated),
            (403, GrpcStatus::PermissionDenied),
            (404, GrpcStatus::Unimplemented),
            (429, GrpcStatus::Unavailable),
            (502, GrpcStatus::Unavailable),
            (503, GrpcStatus::Unavailable),
            (504, GrpcStatus::Unavailable),
            (200, GrpcStatus::Unknown),
            (500, GrpcStatus::Unknown),
        ] {
            assert_eq!(GrpcStatus::of_http(http), status, "{http}");
        }
    }

    #[test]
    fn numbers_that_are_not_known_are_unknown() {
        assert_eq!(GrpcStatus::of(17), GrpcStatus::Unknown);
        assert_eq!(GrpcStatus::of_field(b"-1"), GrpcStatus::Unknown);
        assert_eq!(GrpcStatus::of_field(b""), GrpcStatus::Unknown);
        assert_eq!(GrpcStatus::of_field(b"99999999999"), GrpcStatus::Unknown);
    }

    #[test]
    fn messages_are_escaped_as_the_interop_test_has_them() {
        let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
        let encoded = "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A";
        assert_eq!(encode_message(message), encoded);
        assert_eq!(decode_message(encoded.as_bytes()), message);
        assert_eq!(encode_message("100% ~"), "100%25 ~");
        assert_eq!(decode_message(b"50%, %zz, %f"), "50%, %zz, %f");
        assert_eq!(decode_message(b"%FF"), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn messages_come_back(message in "\\PC*") {
            let encoded = encode_message(&message).into_owned();
            prop_assert!(encoded.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(decode_message(encoded.as_bytes()), message);
        }
    }
}
