//! The checks of a template's source: the names that it uses, and where they stand.

use super::format::MARKS;

/// Returns the line and column of a byte of the source.
pub(super) fn place(source: &str, at: usize) -> String {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}")
}

/// Rejects the characters that mark values in the output.
pub(super) fn check_source(source: &str) -> Result<(), String> {
    match source.find(MARKS) {
        Some(at) => Err(format!("{}: a character that is none (U+FDD0 to U+FDD3)", place(source, at))),
        None => Ok(()),
    }
}

/// Checks that each value which is read is one of the known ones, within one, or above one.
pub(super) fn check_names(source: &str, reads: &[String], known: &[&str]) -> Result<(), String> {
    let is_known =
        |read: &str| known.iter().any(|known| super::is_within(read, known) || super::is_within(known, read));
    let Some(unknown) = reads.iter().find(|read| !is_known(read)) else { return Ok(()) };
    let last = unknown.rsplit('.').next().unwrap_or(unknown);
    let at = tags(source).find_map(|(from, tag)| Some(from + word_in(tag, last)?));
    let place = at.map_or_else(String::new, |at| format!("{}: ", place(source, at)));
    let list = known.join(", ");
    Err(format!("{place}there is no value {unknown}; known are {list}"))
}

/// Returns where a word stands in a tag.
fn word_in(tag: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.match_indices(word)
        .map(|(at, _)| at)
        .find(|at| !tag[..*at].ends_with(is_part) && !tag[at + word.len()..].starts_with(is_part))
}

/// Checks that each filter is a known one: the engine finds out only when it is used.
pub(super) fn check_filters(source: &str, is_known: impl Fn(&str) -> bool) -> Result<(), String> {
    for (from, tag) in tags(source) {
        for at in pipes(tag) {
            let rest = &tag[at + 1..];
            let name = rest.trim_start();
            let begin = from + at + 1 + (rest.len() - name.len());
            let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
            if end > 0 && !is_known(&name[..end]) {
                return Err(format!("{}: there is no filter {}", place(source, begin), &name[..end]));
            }
        }
    }
    Ok(())
}

/// Returns where `|` stands in a tag, outside of texts.
fn pipes(tag: &str) -> Vec<usize> {
    let (mut found, mut quote, mut escaped) = (Vec::new(), None, false);
    for (at, c) in tag.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '|') => found.push(at),
            _ => {}
        }
    }
    found
}

/// Returns the tags of a template, each with the place of its content. Comments and raw blocks are left out.
fn tags(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let open = at + source.get(at..)?.find("{")?;
            let end = match source.as_bytes().get(open + 1)? {
                b'{' => "}}",
                b'%' => "%}",
                b'#' => "#}",
                _ => {
                    at = open + 1;
                    continue;
                }
            };
            let from = open + 2;
            let close = from + end_of_tag(&source[from..], end)?;
            at = close + 2;
            let tag = &source[from..close];
            if end == "%}" && tag.trim_matches(['-', '+']).trim() == "raw" {
                at += source[at..].find("endraw").unwrap_or(0);
            }
            if end != "#}" {
                return Some((from, tag));
            }
        }
    })
}

/// Returns where a tag ends: its end within a text is none.
pub(super) fn end_of_tag(rest: &str, end: &str) -> Option<usize> {
    if end == "#}" {
        return rest.find(end);
    }
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in rest.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if rest[at..].starts_with(end) => return Some(at),
            _ => {}
        }
    }
    None
}
