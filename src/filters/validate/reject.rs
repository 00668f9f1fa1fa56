//! Rejections of what is not valid, and how schemas are read.

use std::path::Path;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use pingora::http::RequestHeader;

use crate::exchange::{Exchange, Reason, Rejection};
use crate::filters::Verdict;
use crate::notation::{Mistake, Mistakes, Place};
use crate::rules::schema::openapi::{BadBody, BodyForm};
use crate::rules::schema::{DocumentReader, FileReader, SchemaFault, Violation, ViolationPlace};
use crate::tls::read_text;

/// The largest file of a schema or a document.
const MAX_FILE: u64 = 64 << 20;

/// Returns a reader of files in the folder of the configuration.
pub fn reader(base: &Path) -> DocumentReader {
    let read: FileReader = Arc::new(|path| read_text(path, MAX_FILE));
    DocumentReader::new(read, vec![base.to_path_buf()])
}

/// Notes the errors of a schema, each at its own place.
pub fn note(faults: Vec<SchemaFault>, place: &Place, mistakes: &mut Mistakes) {
    for fault in faults {
        match &fault.location {
            Some(location) => mistakes.0.push(Mistake {
                place: place.clone(),
                text: fault.to_string(),
                location: Some(location.clone()),
            }),
            // The schema stands in the configuration: its place is known.
            None => {
                let steps = fault.pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
                let place = steps.fold(place.clone(), |place, step| match step.parse() {
                    Ok(index) => place.index(index),
                    Err(_) => place.key(step),
                });
                mistakes.add(&place, fault.text);
            }
        }
    }
}

/// Returns the `Content-Type` of a request.
pub fn content_type(request: &RequestHeader) -> Option<&str> {
    request.headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// Rejects the violations of a request, if there are any.
pub fn reject_all(violations: Vec<Violation>) -> Verdict {
    if violations.is_empty() { Ok(()) } else { Err(Rejection::violating(Reason::RequestInvalid, violations)) }
}

/// Returns the rejection of a request without a body that needs one.
pub fn missing_body() -> Box<Rejection> {
    let missing = Violation::new(ViolationPlace::Body, "", "required", "is missing");
    Rejection::violating(Reason::RequestInvalid, vec![missing])
}

/// Returns the rejection of a body of another type.
pub fn other_type<'t>(accepted: impl Iterator<Item = &'t str>) -> Box<Rejection> {
    let all: Vec<&str> = accepted.collect();
    Rejection::new(Reason::MediaType, format!("accepted here: {}", all.join(", ")))
}

/// Rejects a body that cannot be read, since it is encoded or of more than one type.
pub fn check_readable(request: &RequestHeader, exchange: &Exchange, form: BodyForm) -> Verdict {
    let mut codings = request.headers.get_all(CONTENT_ENCODING).iter();
    if !exchange.is_decoded && codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        // RFC 7694, section 3.
        let rejection = Rejection::new(Reason::MediaType, "send the body without a content coding");
        return Err(rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    if request.headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return Err(Rejection::new(Reason::MediaType, "send one Content-Type"));
    }
    if form == BodyForm::Json && crate::filters::json::is_other_charset(&request.headers, false) {
        return Err(Rejection::new(Reason::MediaType, "send JSON in UTF-8"));
    }
    Ok(())
}

/// Returns the rejection of a body that is not valid.
pub fn bad_body(bad: BadBody) -> Box<Rejection> {
    match bad {
        BadBody::Violations(all) => Rejection::violating(Reason::RequestInvalid, all),
        BadBody::Json(bad) => Rejection::new(Reason::BodyInvalid, bad.to_string()),
        BadBody::NotUtf8 => Rejection::new(Reason::BodyInvalid, "the body is not UTF-8"),
    }
}
