//! `identity_headers`.

use super::underscores::RESERVED;
use crate::config::Config;
use crate::filters::parse_editable_name;
use crate::notation::{Mistakes, Place, carries_credentials};
use crate::snapshot::IdentityHeaders;

/// Further names that the gateway writes itself.
const WRITTEN: &[&str] = &["forwarded", "x-forwarded-prefix", "traceparent", "tracestate"];

/// Compiles the headers of the client's identity. What clients send under these names is removed, so a name that has
/// another meaning is an error.
pub fn compile(config: &Config, mistakes: &mut Mistakes) -> IdentityHeaders {
    let place = Place::default().key("identity_headers").key("consumer");
    let Some(name) = config.identity_headers.consumer() else { return IdentityHeaders::default() };
    let Some(name) = parse_editable_name(name.as_str(), &place, mistakes) else { return IdentityHeaders::default() };
    let text = name.as_str();
    if carries_credentials(text) || RESERVED.contains(&text) || WRITTEN.contains(&text) {
        mistakes.add(&place, format!("{name} has another meaning; use a name of its own, such as x-consumer"));
    } else if text.contains('_') {
        mistakes.add(&place, format!("to many targets {name} is {}: write that", text.replace('_', "-")));
    }
    IdentityHeaders { consumer: Some(name) }
}
