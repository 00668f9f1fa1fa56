//! Values in request targets and in `Location`: where they may stand.

use super::TemplatePart;
use super::value::RequestValue;

/// Checks that no value can change the host, and that there is at most one query.
///
/// # Errors
/// Returns what is wrong.
pub(super) fn check(parts: &[TemplatePart]) -> Result<(), String> {
    let (mut in_authority, mut in_query) = (false, false);
    for (index, part) in parts.iter().enumerate() {
        match part {
            TemplatePart::Text(text) => {
                let rest = match text.find("://") {
                    Some(at) if !in_query => {
                        in_authority = true;
                        &text[at + 3..]
                    }
                    _ if index == 0 && text.starts_with("//") => {
                        return Err("begin with / or with https://".to_owned());
                    }
                    _ => text.as_str(),
                };
                in_authority &= !rest.contains(['/', '?', '#']);
                in_query |= text.contains('?');
            }
            TemplatePart::Value { value: RequestValue::Query, .. } if in_query => {
                return Err("{query} begins with ?, and there is a query before it already".to_owned());
            }
            TemplatePart::Value { value: RequestValue::Path | RequestValue::Query, .. } => in_authority = false,
            TemplatePart::Value { value: RequestValue::Scheme, .. } if index == 0 => {}
            TemplatePart::Value { value, .. } => {
                let names_host =
                    matches!(value, RequestValue::Host | RequestValue::ListenerPort | RequestValue::TlsServerName);
                if (in_authority && !names_host) || index == 0 {
                    return Err("a value here could change the host: write a / before it".to_owned());
                }
            }
        }
    }
    Ok(())
}
