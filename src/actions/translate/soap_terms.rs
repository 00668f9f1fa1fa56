//! The terms that both translations of SOAP share.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection};
use crate::notation::Place;
use crate::rules::payload::{FieldPath, XmlToJson};
use crate::rules::soap::SoapVersion;

/// The version of SOAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SoapVersionName {
    /// SOAP 1.1.
    #[default]
    #[serde(rename = "1.1")]
    V11,
    /// SOAP 1.2.
    #[serde(rename = "1.2")]
    V12,
}

/// What an element without content is in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum EmptyElement {
    /// The empty text.
    #[default]
    #[serde(rename = "")]
    Text,
    /// `null`.
    #[serde(rename = "null")]
    Null,
}

/// Returns the version of that name.
pub fn version(name: SoapVersionName) -> SoapVersion {
    match name {
        SoapVersionName::V11 => SoapVersion::V11,
        SoapVersionName::V12 => SoapVersion::V12,
    }
}

/// Returns the conversion of elements, in which those at the paths are lists; notes errors.
pub fn conversion(
    arrays: &[String],
    empty: EmptyElement,
    place: &Place,
    context: &mut ActionContext<'_>,
) -> Option<XmlToJson> {
    let mut paths: Vec<FieldPath> = Vec::with_capacity(arrays.len());
    for (index, array) in arrays.iter().enumerate() {
        // Behind the element of the body, whose name is not written.
        paths.push(context.mistakes.take(&place.index(index), format!("*.{array}").parse())?);
    }
    context.mistakes.take(place, XmlToJson::new(&paths, empty == EmptyElement::Null, true))
}

/// Notes a name that cannot be the name of an element.
pub fn check_element(name: &str, place: &Place, context: &mut ActionContext<'_>) {
    let begins = |c: char| c.is_alphabetic() || c == '_';
    let continues = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if !name.starts_with(begins) || !name.chars().all(continues) {
        context.mistakes.add(place, format!("expected the name of an element, found \"{name}\""));
    }
}

/// Adds a part to a response that is read whole.
pub fn collect(body: &mut BytesMut, part: &Bytes, most: usize) -> Result<(), Box<Rejection>> {
    if body.len() + part.len() > most {
        let log = format!("the response has more than {most} bytes");
        return Err(Rejection::new(Reason::ResponseUntranslatable, "").log(log));
    }
    body.extend_from_slice(part);
    Ok(())
}

/// Returns the media type of a message, in lower case and without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Returns whether a message is JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = media_type(headers);
    kind == "application/json" || kind.ends_with("+json")
}
