//! The choice of a media type by `Accept` (RFC 9110, section 12.5.1).

use super::accept::read_member;

/// Returns which of the offered types the values of `Accept` like best. Of equals the one that is named more precisely
/// counts, and then the one that is offered first; that one also where no value says anything.
pub fn preferred_type<'v>(values: impl IntoIterator<Item = &'v [u8]>, offered: &[&str]) -> usize {
    // For each type the weight, and how precisely it is named.
    let mut found: Vec<Option<(u8, u16)>> = vec![None; offered.len()];
    for member in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let Some((range, weight)) = read_member(member) else { continue };
        for (offer, known) in offered.iter().zip(&mut found) {
            let precision = precision_of(range, offer);
            if precision > 0 && known.is_none_or(|(before, _)| precision > before) {
                *known = Some((precision, weight));
            }
        }
    }
    let rank = |index: usize| found[index].map_or((0, 0), |(precision, weight)| (weight, precision));
    // The first of equals counts: `max_by_key` takes the last.
    (0..offered.len()).rev().max_by_key(|index| rank(*index)).unwrap_or(0)
}

/// Returns how precisely a range names a type: 3 by its name, 2 by its first half, 1 by `*/*`, 0 not at all.
fn precision_of(range: &str, offer: &str) -> u8 {
    if range.eq_ignore_ascii_case(offer) {
        3
    } else if range == "*/*" {
        1
    } else {
        let half = range
            .strip_suffix("/*")
            .is_some_and(|half| offer.split('/').next().is_some_and(|first| first.eq_ignore_ascii_case(half)));
        if half { 2 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_weight_then_precision_then_order() {
        let offered = ["application/json", "text/html", "text/plain"];
        for (accept, wanted) in [
            ("", 0),
            ("*/*", 0),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 1),
            ("text/html, */*", 1),
            ("application/json, text/plain, */*", 0),
            ("text/*", 1),
            ("TEXT/HTML;q=0.5, application/*;q=0.4", 1),
            ("text/plain", 2),
            ("text/html;q=0, */*", 0),
            ("image/avif,*/*;q=0.8", 0),
            ("image/avif", 0),
            ("application/json;q=0, text/html;q=0.1", 1),
        ] {
            assert_eq!(preferred_type([accept.as_bytes()], &offered), wanted, "{accept}");
        }
        assert_eq!(preferred_type([], &offered), 0);
    }
}
