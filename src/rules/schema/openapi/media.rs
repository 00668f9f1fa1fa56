//! Media types of bodies.

/// A media type or a range of them, such as `application/json` or `text/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange(String);

/// The form in which a body is read for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// JSON.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Plain text.
    Text,
    /// Anything else, which is not looked into.
    Opaque,
}

impl MediaRange {
    /// Returns the range; parameters are not compared.
    pub fn new(text: &str) -> Self {
        Self(essence(text).to_ascii_lowercase())
    }

    /// Returns how precisely the range has a type: 3 by its name, 2 by its first half, 1 by `*/*`, 0 not at all.
    pub fn precision(&self, kind: &str) -> u8 {
        if self.0.eq_ignore_ascii_case(kind) {
            return 3;
        }
        if self.0 == "*/*" {
            return 1;
        }
        let half = self.0.strip_suffix("/*");
        u8::from(half.is_some_and(|half| kind.split('/').next().is_some_and(|k| k.eq_ignore_ascii_case(half)))) * 2
    }

    /// Returns whether it names one type.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a media type without its parameters.
pub fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// Returns the form of a body of that type.
pub fn form_of(kind: &str) -> BodyForm {
    let lower = kind.to_ascii_lowercase();
    if lower == "application/json" || lower.ends_with("+json") || lower == "text/json" {
        BodyForm::Json
    } else if lower == "application/x-www-form-urlencoded" {
        BodyForm::Form
    } else if lower == "text/plain" {
        BodyForm::Text
    } else {
        BodyForm::Opaque
    }
}

/// Returns the most precise of the ranges that have a type.
pub fn best<'c, T>(ranges: &'c [T], range: impl Fn(&T) -> &MediaRange, kind: &str) -> Option<&'c T> {
    let fitting = ranges.iter().filter(|one| range(one).precision(kind) > 0);
    fitting.max_by_key(|one| range(one).precision(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_precise_range_counts() {
        let ranges = ["*/*", "application/*", "application/JSON; charset=utf-8", "text/*"].map(MediaRange::new);
        let found = |kind: &str| best(&ranges, |range| range, essence(kind)).map(MediaRange::as_str);
        assert_eq!(found("Application/Json;charset=latin1"), Some("application/json"));
        assert_eq!(found("application/xml"), Some("application/*"));
        assert_eq!(found("image/png"), Some("*/*"));
        assert_eq!(best(&ranges[2..], |range| range, "image/png"), None);
        for (kind, form) in [
            ("application/problem+json", BodyForm::Json),
            ("application/x-www-form-urlencoded", BodyForm::Form),
            ("text/plain", BodyForm::Text),
            ("multipart/form-data", BodyForm::Opaque),
        ] {
            assert_eq!(form_of(kind), form);
        }
    }
}
