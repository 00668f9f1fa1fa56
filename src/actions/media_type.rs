//! The media types of files.

use std::path::Path;

use http::HeaderValue;

/// Returns the `Content-Type` of a file by the extension of its name; texts are UTF-8.
pub fn media_type_of(path: &Path) -> HeaderValue {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let kind = guess.essence_str();
    let text = if guess.type_() == mime_guess::mime::TEXT { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}
